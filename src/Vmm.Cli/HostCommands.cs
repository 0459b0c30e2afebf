using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli;

/// <summary><c>vmmctl host show</c>: what the daemon's host offers; this machine when there is no daemon.</summary>
internal static class HostCommands
{
    internal static Command Create(GlobalOptions options, Application application)
    {
        Noun host = new("host", "The machine that VMs run on", options);
        host.Add("show", "KVM and NUMA nodes, of the daemon's host; of this machine when no daemon is named and none runs here", [], async (session, parsed, cancellation) =>
            options.NamesDaemon(parsed) || File.Exists(session.Address.Socket) ? await ShowAsync(session, cancellation).ConfigureAwait(false) : application.ShowHost(session.IsJson));
        return host.Command;
    }

    private static async Task<int> ShowAsync(DaemonSession session, CancellationToken cancellation)
    {
        HostInfo host = await session.Client.HostAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(host, RestJson.Default.HostInfo);
        }

        await session.Out.WriteLineAsync($"KVM: {host.Kvm}\nvmmd: {host.Version}").ConfigureAwait(false);
        Table table = new("NODE", "CPUS", "TOTAL", "FREE");
        foreach (HostNodeInfo node in host.Nodes)
        {
            table.Add(DaemonSession.Number(node.Id), node.Cpus, DaemonSession.Size(node.TotalBytes), DaemonSession.Size(node.FreeBytes));
        }

        return session.Table(table);
    }
}
