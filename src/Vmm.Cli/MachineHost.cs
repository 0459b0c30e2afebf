using Vmm.Machine.Run;
using Vmm.Machine.Spec;

namespace Vmm.Cli;

/// <summary>The one place where the command line meets the machine.</summary>
internal static class MachineHost
{
    /// <summary>Builds the VM of a spec and runs it to its end.</summary>
    internal static RunResult Run(VmSpec spec, IConsoleEndpoint console, Action<string>? note, CancellationToken stop)
    {
        using VirtualMachine machine = VirtualMachine.Create(spec, console, note);
        return machine.Run(stop);
    }
}
