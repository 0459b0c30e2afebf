using System.CommandLine;
using Vmm.Cli.Remote;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm start|stop|power-button|wake|pause|resume</c>: names, options, help.</summary>
internal static class LifeCommands
{
    internal static void AddTo(Noun vm)
    {
        vm.Add("start", "Start a VM", VmCommands.Name(), VmVerbs.StartAsync);
        AddStop(vm);
        AddPowerButton(vm);
        vm.Add("wake", "Wake a guest that sleeps (systemctl suspend)", VmCommands.Name(),
            (session, name, cancellation) => VmVerbs.DoAsync(session, name, "wake", cancellation));
        vm.Add("pause", "Stop the vCPUs between two instructions", VmCommands.Name(),
            (session, name, cancellation) => VmVerbs.DoAsync(session, name, "pause", cancellation));
        vm.Add("resume", "Let paused vCPUs go on", VmCommands.Name(),
            (session, name, cancellation) => VmVerbs.DoAsync(session, name, "resume", cancellation));
    }

    private static void AddStop(Noun vm)
    {
        Argument<string?> name = VmCommands.OptionalName();
        Option<bool> all = new("--all") { Description = "All VMs that run, at once" };
        Option<bool> graceful =
            new("--graceful") { Description = "Press the power button first, and pull the plug only when the guest is not off in time" };
        Option<int> patience = new("--timeout")
        {
            Description = "How long the guest has, with --graceful",
            DefaultValueFactory = _ => 60,
            HelpName = "seconds"
        };
        vm.Add("stop", "Pull the plug; with --graceful ask the guest first", [name, all, graceful, patience],
            (session, parsed, cancellation) =>
                (parsed.GetValue(name), parsed.GetValue(all), parsed.GetValue(graceful)) switch
                {
                    (null, true, var ask) => VmVerbs.StopAllAsync(session, ask ? parsed.GetValue(patience) : null, cancellation),
                    ({ } one, false, true) => VmVerbs.StopAsync(session, one, parsed.GetValue(patience), cancellation),
                    ({ } one, false, false) => VmVerbs.DoAsync(session, one, "stop", cancellation),
                    _ => throw new UsageException("vm stop: give the name of a VM, or --all"),
                });
    }

    private static void AddPowerButton(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<string?> wait = WaitOption.Create("the guest has powered off");
        vm.Add("power-button", "Press the power button; the guest decides what it does", [name, wait], (session, parsed, cancellation) =>
            VmVerbs.PressAsync(session, parsed.GetValue(name)!, WaitOption.Read(parsed, wait), cancellation));
    }
}
