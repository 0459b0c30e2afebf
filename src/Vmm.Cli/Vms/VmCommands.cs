using System.CommandLine;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm …</c>: names, options, help. What they do is in <see cref="VmVerbs"/> and beside it.</summary>
internal static class VmCommands
{
    /// <summary>The verbs stand in the help in the order in which they are added here.</summary>
    internal static Command Create(GlobalOptions options, Application application)
    {
        Noun vm = new("vm", "Virtual machines that a vmmd runs", options);
        vm.Add("list", "All VMs", [], (session, _, cancellation) => VmVerbs.ListAsync(session, cancellation));
        vm.Add("show", "One VM", Name(), VmVerbs.ShowAsync);
        CreateVerb.AddTo(vm);
        SeedVerb.AddTo(vm);
        AddDelete(vm);
        LifeCommands.AddTo(vm);
        SaveCommands.AddTo(vm);
        MoveCommands.AddTo(vm);
        vm.Add("console", "The serial console on this terminal; Ctrl-A x leaves, the VM goes on", Name(),
            (session, name, cancellation) => RemoteConsole.RunAsync(session.Client, name, cancellation));
        AddLogs(vm);
        AddStats(vm);
        vm.Add("inspect", "Every part of a running VM that has state, and what happens to it, also while a save hangs", Name(),
            VmVerbs.InspectAsync);
        vm.Add("agent", "Whether an agent answers in the guest, and what it can", Name(), VmVerbs.AgentAsync);
        GuestCommands.AddTo(vm);
        DeviceCommands.AddTo(vm);
        MemoryCommands.AddTo(vm);
        vm.Add("edit", "Change the spec in $EDITOR; the VM must not run", Name(), SpecEditor.EditAsync);
        AddSpec(vm, application);
        return vm.Command;
    }

    /// <summary>Which VM.</summary>
    internal static Argument<string> Name() => new("name") { Description = "Name of the VM" };

    /// <summary>Which VM, for verbs that can do without.</summary>
    internal static Argument<string?> OptionalName() =>
        new("name") { Description = "Name of the VM", Arity = ArgumentArity.ZeroOrOne };

    private static void AddDelete(Noun vm)
    {
        Argument<string> name = Name();
        Option<bool> force = new("--force") { Description = "Stop it first when it runs" };
        const string Help = "Forget a VM, with the disks that were made for it from images; others stay";
        vm.Add("delete", Help, [name, force], (session, parsed, cancellation) =>
            VmVerbs.DeleteAsync(session, parsed.GetValue(name)!, parsed.GetValue(force), cancellation));
    }

    private static void AddLogs(Noun vm)
    {
        Argument<string> name = Name();
        Option<bool> follow = new("--follow", "-f") { Description = "Go on with what happens, until Ctrl-C" };
        vm.Add("logs", "What happened to a VM: states, how runs ended, restarts", [name, follow], (session, parsed, cancellation) =>
            EventView.LogsAsync(session, parsed.GetValue(name)!, parsed.GetValue(follow), cancellation));
    }

    private static void AddStats(Noun vm)
    {
        Argument<string> name = Name();
        Option<bool> watch = new("--watch") { Description = "A line of rates per second, again and again until Ctrl-C" };
        Option<int?> interval = new("--interval") { Description = "Seconds between the lines, 1 by default", HelpName = "seconds" };
        vm.Add("stats", "Counters of a running VM", [name, watch, interval], (session, parsed, cancellation) =>
        {
            bool again = parsed.GetValue(watch);
            int? seconds = parsed.GetValue(interval);
            return seconds is < 1 or > 3600 ? throw new UsageException("vm stats: --interval is 1 to 3600 seconds")
                : seconds is not null && !again ? throw new UsageException("vm stats: --interval is for --watch")
                : StatsView.ShowAsync(
                    session, parsed.GetValue(name)!, again ? TimeSpan.FromSeconds(seconds ?? 1) : null, cancellation);
        });
    }

    private static void AddSpec(Noun vm, Application application)
    {
        Argument<string?> name = OptionalName();
        Option<bool> schema = new("--schema") { Description = "Print the JSON schema of a spec instead" };
        vm.Add("spec", "Print the spec as it was given", [name, schema], (session, parsed, cancellation) =>
            parsed.GetValue(schema) ? Task.FromResult(application.Schema())
            : parsed.GetValue(name) is { } which ? VmVerbs.SpecAsync(session, which, cancellation)
            : throw new UsageException("vm spec: name a VM, or ask for the schema with --schema"));
    }
}
