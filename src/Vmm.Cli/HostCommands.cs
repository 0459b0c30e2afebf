using System.CommandLine;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.Memory;

namespace Vmm.Cli;

/// <summary><c>vmmctl host show</c>: what the daemon's host offers; this machine when there is no daemon.</summary>
internal static class HostCommands
{
    internal static Command Create(GlobalOptions options, Application application)
    {
        Noun host = new("host", "The machine that VMs run on", options);
        host.Add("show", "KVM and NUMA nodes, of the daemon's host; of this machine when no daemon is named and none runs here", [],
            async (session, parsed, cancellation) =>
                options.NamesDaemon(parsed) || File.Exists(session.Address.Socket)
                    ? await ShowAsync(session, cancellation).ConfigureAwait(false)
                    : application.ShowHost(session.IsJson));
        host.Add(
            "numa", "NUMA nodes: CPUs, memory, huge pages, distances, and which VM's vnodes sit there; of this machine when no daemon is "
                + "named and none runs here",
            [],
            async (session, parsed, cancellation) => ShowNuma(session, options.NamesDaemon(parsed) || File.Exists(session.Address.Socket)
                ? await session.Client.HostNumaAsync(cancellation).ConfigureAwait(false)
                : LocalNuma.Read()));
        Argument<string?> description = new("file")
        {
            Description = "A description of another machine, from its host cpu -o json",
            HelpName = "file",
            Arity = ArgumentArity.ZeroOrOne
        };
        host.Add(
            "cpu", "The processor that KVM of this machine can show to guests: models and features; with a file, what it lacks beside that "
                + "one (exit code 1 when something)",
            [description],
            (session, parsed, _) => Task.FromResult(CpuView.Run(session, application.Survey(), parsed.GetValue(description))));
        Argument<string> spec = new("file") { Description = "The spec file", HelpName = "file" };
        host.Add(
            "fit", "How the vnodes of a spec would lie on the host now (as its start does it with numa: {fit: best}); nothing is started; "
                + "on this machine when no daemon is named and none runs here",
            [spec],
            (session, parsed, cancellation) => FitView.RunAsync(
                session, parsed.GetValue(spec)!, options.NamesDaemon(parsed) || File.Exists(session.Address.Socket), cancellation));
        Option<string?> set = new("--set")
        {
            Description = "Switch it until the daemon's next start (for good: balancer in vmmd.yaml)",
            HelpName = "on|off|dry-run"
        };
        host.Add("balancer", "What the balancer of memory sees and decides", [set],
            (session, parsed, cancellation) => BalancerView.RunAsync(session, parsed.GetValue(set), cancellation));
        host.Add("pressure", "How the host's memory stands, and what was taken from VMs with a resident limit because it is short", [],
            (session, _, cancellation) => PressureView.RunAsync(session, cancellation));
        Argument<string?> level = new("level")
        {
            Description = "Change it until the daemon's next start (for good: logLevel in vmmd.yaml)",
            Arity = ArgumentArity.ZeroOrOne,
            HelpName = "debug|information|warning|error"
        };
        host.Add("log-level", "The least severe that the daemon logs; with a level, change it", [level],
            (session, parsed, cancellation) => LogLevelView.RunAsync(session, parsed.GetValue(level), cancellation));
        return host.Command;
    }

    private static int ShowNuma(DaemonSession session, HostNuma host)
    {
        if (session.IsJson)
        {
            return session.Json(host, RestJson.Default.HostNuma);
        }

        Table table = new("NODE", "CPUS", "TOTAL", "FREE", "AVAILABLE", "HUGE PAGES FREE", "DISTANCES");
        Table tenants = new("NODE", "VM", "VNODE", "MEMORY");
        foreach (HostNumaNode node in host.Nodes)
        {
            string huge = string.Join(", ", node.HugePages.Select(p => $"{p.Free}/{p.Total} of {new ByteSize(p.PageBytes)}"));
            table.Add(DaemonSession.Number(node.Id), node.Cpus.Length > 0 ? node.Cpus : "-", DaemonSession.Size(node.TotalBytes),
                DaemonSession.Size(node.FreeBytes), DaemonSession.Size(node.AvailableBytes),
                huge.Length > 0 ? huge : "-", string.Join(' ', node.Distances));
            foreach (NodeTenant tenant in node.Tenants)
            {
                tenants.Add(DaemonSession.Number(node.Id), tenant.Vm, DaemonSession.Number(tenant.Vnode), DaemonSession.Size(tenant.Bytes));
            }
        }

        session.Table(table);
        if (host.Nodes.Any(n => n.Tenants.Count > 0))
        {
            session.Out.WriteLine();
            session.Table(tenants);
        }

        return ExitCodes.Done;
    }

    private static async Task<int> ShowAsync(DaemonSession session, CancellationToken cancellation)
    {
        HostInfo host = await session.Client.HostAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(host, RestJson.Default.HostInfo);
        }

        await session.Out.WriteLineAsync(
            $"KVM: {host.Kvm}\nCPU models: {string.Join(' ', host.CpuModels ?? [])}\nvmmd: {host.Version}").ConfigureAwait(false);
        Table table = new("NODE", "CPUS", "TOTAL", "FREE");
        foreach (HostNodeInfo node in host.Nodes)
        {
            table.Add(DaemonSession.Number(node.Id), node.Cpus, DaemonSession.Size(node.TotalBytes), DaemonSession.Size(node.FreeBytes));
        }

        return session.Table(table);
    }
}
