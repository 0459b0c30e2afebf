using System.CommandLine;
using Vmm.Cli.Remote;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm memory|numa|rehome</c>: names, options, help.</summary>
internal static class MemoryCommands
{
    internal static void AddTo(Noun vm)
    {
        AddMemory(vm);
        vm.Add("numa", "Where a running VM lies on its host: memory per host node, threads and their CPUs", VmCommands.Name(),
            NumaView.ShowAsync);
        AddRehome(vm);
    }

    private static void AddMemory(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<int> vnode = new("--vnode") { Description = "Which vnode", HelpName = "K" };
        Option<string?> size = new("--size") { Description = "All memory the vnode shall have, e.g. 3GiB", HelpName = "size" };
        Option<bool> auto = new("--auto") { Description = "Let the balancer decide about the vnode again" };
        Option<string?> balloon = new("--balloon") { Description = "Size the balloon shall have", HelpName = "size" };
        Option<string?> resident = new("--resident")
        {
            Description = "Most memory that is resident on the host, e.g. 256MiB or 25%, also in its spec; for a VM with such a limit",
            HelpName = "size|percent",
        };
        Option<bool> force = new("--force")
        {
            Description = "Ask for all of it at once; without it a guest is not asked for what would leave it too little"
        };
        Option<int> timeout =
            new("--timeout") { Description = "Seconds to wait for the guest", DefaultValueFactory = _ => 30, HelpName = "seconds" };
        vm.Add("memory", "Memory of each vnode; with --size, --balloon or --resident, change it while the VM runs",
            [name, vnode, size, auto, balloon, resident, force, timeout], (session, parsed, cancellation) =>
            MemoryView.RunAsync(session, parsed.GetValue(name)!, new MemoryArguments
            {
                Vnode = parsed.GetValue(vnode),
                Size = parsed.GetValue(size),
                Auto = parsed.GetValue(auto),
                Balloon = parsed.GetValue(balloon),
                Resident = parsed.GetValue(resident),
                Force = parsed.GetValue(force),
                Timeout = parsed.GetValue(timeout),
            }, cancellation));
    }

    private static void AddRehome(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<int> vnode = new("--vnode") { Description = "Which vnode", HelpName = "K", Required = true };
        Option<string> nodes = new("--host-nodes") { Description = "Where to, e.g. 1 or 0-1", HelpName = "set", Required = true };
        Option<string?> rate =
            new("--rate") { Description = "Bytes a second on average, e.g. 1GiB; without it as fast as it goes", HelpName = "size" };
        Option<string?> wait = WaitOption.Create("it is there");
        vm.Add("rehome", "Move a vnode to other host nodes while the VM runs: memory and threads", [name, vnode, nodes, rate, wait],
            (session, parsed, cancellation) =>
                NumaView.RehomeAsync(session, parsed.GetValue(name)!, parsed.GetValue(vnode), parsed.GetValue(nodes)!,
                    parsed.GetValue(rate), WaitOption.Read(parsed, wait), cancellation));
    }
}
