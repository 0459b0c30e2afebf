using System.CommandLine;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm …</c>: names, options, help. What they do is in <see cref="VmVerbs"/> and beside it.</summary>
internal static class VmCommands
{
    internal static Command Create(GlobalOptions options, Application application)
    {
        Noun vm = new("vm", "Virtual machines that a vmmd runs", options);
        Argument<string> name = new("name") { Description = "Name of the VM" };
        Argument<string?> anyName = new("name") { Description = "Name of the VM", Arity = ArgumentArity.ZeroOrOne };
        Option<string> file = new("--file", "-f") { Description = "VM spec (YAML)", HelpName = "spec.yaml", Required = true };
        Option<bool> start = new("--start") { Description = "Start it, too" };
        Option<bool> force = new("--force") { Description = "Stop it first when it runs" };
        Option<bool> watch = new("--watch") { Description = "A line of differences every second, until Ctrl-C" };
        Option<bool> follow = new("--follow", "-f") { Description = "Go on with what happens, until Ctrl-C" };
        Option<bool> schema = new("--schema") { Description = "Print the JSON schema of a spec instead" };
        Option<string?> waitOff = WaitOption.Create("the guest has powered off");

        vm.Add("list", "All VMs", [], (session, _, cancellation) => VmVerbs.ListAsync(session, cancellation));
        vm.Add(
            "show", "One VM", [name], (session, parsed, cancellation) => VmVerbs.ShowAsync(session, parsed.GetValue(name)!, cancellation));
        vm.Add("create", "Create a VM from a spec; the same spec again changes nothing", [file, start], (session, parsed, cancellation) =>
            VmVerbs.CreateAsync(session, parsed.GetValue(file)!, parsed.GetValue(start), cancellation));
        vm.Add("delete", "Forget a VM; its disks stay", [name, force],
            (session, parsed, cancellation) => VmVerbs.DeleteAsync(session, parsed.GetValue(name)!, parsed.GetValue(force), cancellation));
        vm.Add("start", "Start a VM", [name],
            (session, parsed, cancellation) => VmVerbs.StartAsync(session, parsed.GetValue(name)!, cancellation));
        Option<bool> graceful =
            new("--graceful") { Description = "Press the power button first, and pull the plug only when the guest is not off in time" };
        Option<int> patience = new("--timeout")
        {
            Description = "How long the guest has, with --graceful",
            DefaultValueFactory = _ => 60,
            HelpName = "seconds"
        };
        Option<bool> all = new("--all") { Description = "All VMs that run, at once" };
        vm.Add("stop", "Pull the plug; with --graceful ask the guest first", [anyName, all, graceful, patience],
            (session, parsed, cancellation) =>
                (parsed.GetValue(anyName), parsed.GetValue(all), parsed.GetValue(graceful)) switch
                {
                    (null, true, var ask) => VmVerbs.StopAllAsync(session, ask ? parsed.GetValue(patience) : null, cancellation),
                    ({ } one, false, true) => VmVerbs.StopAsync(session, one, parsed.GetValue(patience), cancellation),
                    ({ } one, false, false) => VmVerbs.DoAsync(session, one, "stop", cancellation),
                    _ => throw new UsageException("vm stop: give the name of a VM, or --all"),
                });
        vm.Add("power-button", "Press the power button; the guest decides what it does", [name, waitOff], (session, parsed, cancellation) =>
            VmVerbs.PressAsync(session, parsed.GetValue(name)!, WaitOption.Read(parsed, waitOff), cancellation));
        vm.Add("wake", "Wake a guest that sleeps (systemctl suspend)", [name],
            (session, parsed, cancellation) => VmVerbs.DoAsync(session, parsed.GetValue(name)!, "wake", cancellation));
        vm.Add("pause", "Stop the vCPUs between two instructions", [name],
            (session, parsed, cancellation) => VmVerbs.DoAsync(session, parsed.GetValue(name)!, "pause", cancellation));
        vm.Add("resume", "Let paused vCPUs go on", [name],
            (session, parsed, cancellation) => VmVerbs.DoAsync(session, parsed.GetValue(name)!, "resume", cancellation));
        Argument<string> saveTo =
            new("folder") { Description = "Folder to make, in a storage folder of the daemon's host", HelpName = "dir" };
        Argument<string> saved = new("folder") { Description = "Folder of the saved VM", HelpName = "dir" };
        vm.Add("save", "Write a VM into a folder and end it; its disks stay where they are and must not change", [name, saveTo],
            (session, parsed, cancellation) =>
                SaveVerbs.SaveAsync(session, parsed.GetValue(name)!, parsed.GetValue(saveTo)!, cancellation));
        vm.Add("restore", "Go on with a VM where it was saved", [saved], (session, parsed, cancellation) =>
            SaveVerbs.RestoreAsync(session, parsed.GetValue(saved)!, cancellation));
        vm.Add("discard-saved", "Forget where a VM is saved, so that it can boot anew; the folder stays", [name],
            (session, parsed, cancellation) =>
                VmVerbs.DoAsync(session, parsed.GetValue(name)!, "discard-saved", cancellation));
        vm.Add("console", "The serial console on this terminal; Ctrl-A x leaves, the VM goes on", [name], (session, parsed, cancellation) =>
            RemoteConsole.RunAsync(session.Client, parsed.GetValue(name)!, cancellation));
        vm.Add("logs", "What happened to a VM: states, how runs ended, restarts", [name, follow], (session, parsed, cancellation) =>
            EventView.LogsAsync(session, parsed.GetValue(name)!, parsed.GetValue(follow), cancellation));
        vm.Add("stats", "Counters of a running VM", [name, watch],
            (session, parsed, cancellation) => StatsView.ShowAsync(session, parsed.GetValue(name)!, parsed.GetValue(watch), cancellation));
        Argument<string> device = new("device") { Description = "disk0, net1, …" };
        Option<string?> bandwidth = new("--bandwidth") { Description = "Bytes a second, e.g. 100MiB", HelpName = "size" };
        Option<long?> operations = new("--operations") { Description = "Requests or frames a second", HelpName = "N" };
        Option<bool> none = new("--none") { Description = "No limit" };
        Argument<string> limited = new("device") { Description = "disk0, net1, …; cpu for its time on host CPUs" };
        Option<string?> quota =
            new("--quota") { Description = "With cpu: most time, in percent of one host CPU, e.g. 150%", HelpName = "percent" };
        Option<int?> weight =
            new("--weight") { Description = "With cpu: share beside other VMs, 1 to 10000; 100 by default", HelpName = "N" };
        vm.Add("limit", "Limit a disk, a network device or the CPU time of a running VM, until its next start",
            [name, limited, bandwidth, operations, quota, weight, none], (session, parsed, cancellation) =>
            LimitVerb.RunAsync(session, parsed.GetValue(name)!, parsed.GetValue(limited)!,
                new LimitWish(parsed.GetValue(bandwidth), parsed.GetValue(operations), parsed.GetValue(quota), parsed.GetValue(weight),
                    parsed.GetValue(none)),
                cancellation));
        Option<string?> disk = new("--disk")
        {
            Description = "A disk, as 'vmmctl run --disk' takes it",
            HelpName = "path[,ro][,queues=N][,serial=S][,cache=direct|buffered]"
        };
        Option<string?> net =
            new("--net") { Description = "A network device, as 'vmmctl run --net' takes it", HelpName = "tap=NAME[,mac=M][,queues=N]" };
        Option<bool> temporary =
            new("--temporary") { Description = "Leave the stored spec as it is: the next start does not know of this change" };
        Option<int> letGo = new("--timeout")
        {
            Description = "Seconds that the guest has to let go of the device",
            DefaultValueFactory = _ => 30,
            HelpName = "seconds"
        };
        Option<bool> take = new("--force") { Description = "Take it when that time is over" };
        vm.Add("devices", "Disks and network devices of a VM", [name],
            (session, parsed, cancellation) => DeviceVerbs.ListAsync(session, parsed.GetValue(name)!, cancellation));
        vm.Add("attach", "Add a disk or network device, also while the VM runs", [name, disk, net, temporary],
            (session, parsed, cancellation) =>
                DeviceVerbs.AttachAsync(
                    session,
                    parsed.GetValue(name)!,
                    parsed.GetValue(disk),
                    parsed.GetValue(net),
                    parsed.GetValue(temporary),
                    cancellation));
        vm.Add("detach", "Remove a disk or network device, also while the VM runs: the guest is asked to let go of it",
            [name, device, letGo, take, temporary], (session, parsed, cancellation) =>
            DeviceVerbs.DetachAsync(session, parsed.GetValue(name)!, parsed.GetValue(device)!, parsed.GetValue(letGo),
                parsed.GetValue(take), parsed.GetValue(temporary), cancellation));
        Option<int> vnode = new("--vnode") { Description = "Which vnode", HelpName = "K" };
        Option<string?> size = new("--size") { Description = "All memory the vnode shall have, e.g. 3GiB", HelpName = "size" };
        Option<string?> balloon = new("--balloon") { Description = "Size the balloon shall have", HelpName = "size" };
        Option<int> timeout =
            new("--timeout") { Description = "Seconds to wait for the guest", DefaultValueFactory = _ => 30, HelpName = "seconds" };
        Option<bool> auto = new("--auto") { Description = "Let the balancer decide about the vnode again" };
        Option<bool> insist = new("--force")
        {
            Description = "Ask for all of it at once; without it a guest is not asked for what would leave it too little"
        };
        vm.Add("memory", "Memory of each vnode; with --size or --balloon, change it while the VM runs",
            [name, vnode, size, auto, balloon, insist, timeout], (session, parsed, cancellation) =>
            MemoryView.RunAsync(session, parsed.GetValue(name)!, parsed.GetValue(vnode), parsed.GetValue(size), parsed.GetValue(auto),
                parsed.GetValue(balloon), parsed.GetValue(insist), parsed.GetValue(timeout), cancellation));
        vm.Add("numa", "Where a running VM lies on its host: memory per host node, threads and their CPUs", [name],
            (session, parsed, cancellation) =>
                NumaView.ShowAsync(session, parsed.GetValue(name)!, cancellation));
        Option<int> moved = new("--vnode") { Description = "Which vnode", HelpName = "K", Required = true };
        Option<string> nodes = new("--host-nodes") { Description = "Where to, e.g. 1 or 0-1", HelpName = "set", Required = true };
        Option<string?> rate =
            new("--rate") { Description = "Bytes a second on average, e.g. 1GiB; without it as fast as it goes", HelpName = "size" };
        Option<string?> waitMoved = WaitOption.Create("it is there");
        vm.Add("rehome", "Move a vnode to other host nodes while the VM runs: memory and threads", [name, moved, nodes, rate, waitMoved],
            (session, parsed, cancellation) =>
                NumaView.RehomeAsync(session, parsed.GetValue(name)!, parsed.GetValue(moved), parsed.GetValue(nodes)!,
                    parsed.GetValue(rate), WaitOption.Read(parsed, waitMoved), cancellation));
        vm.Add("edit", "Change the spec in $EDITOR; the VM must not run", [name],
            (session, parsed, cancellation) => SpecEditor.EditAsync(session, parsed.GetValue(name)!, cancellation));
        vm.Add("spec", "Print the spec as it was given", [anyName, schema], (session, parsed, cancellation) =>
            parsed.GetValue(schema) ? Task.FromResult(application.Schema())
            : parsed.GetValue(anyName) is { } which ? VmVerbs.SpecAsync(session, which, cancellation)
            : throw new UsageException("vm spec: name a VM, or ask for the schema with --schema"));
        return vm.Command;
    }
}
