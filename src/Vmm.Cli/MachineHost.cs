using System.Runtime.ExceptionServices;
using Vmm.Machine.Run;
using Vmm.Machine.Spec;

namespace Vmm.Cli;

/// <summary>The one place where the command line meets the machine.</summary>
internal sealed class MachineHost : IDisposable
{
    private EmptyVm? _prepared;
    private ExceptionDispatchInfo? _failure;

    /// <summary>Makes what needs no spec, on whatever thread the caller has to spare; what fails is told by <see cref="Run"/>.</summary>
    internal void Prepare()
    {
        try
        {
            _prepared = EmptyVm.Create();
        }
#pragma warning disable CA1031 // Thrown again where the caller handles errors of the machine.
        catch (Exception e)
#pragma warning restore CA1031
        {
            _failure = ExceptionDispatchInfo.Capture(e);
        }
    }

    /// <summary>Builds the VM of a spec and runs it to its end.</summary>
    internal RunResult Run(VmSpec spec, IConsoleEndpoint console, Action<string>? note, CancellationToken stop)
    {
        _failure?.Throw();
        EmptyVm? prepared = _prepared;
        _prepared = null;
        using VirtualMachine machine = VirtualMachine.Create(spec, console, note, prepared);
        return machine.Run(stop);
    }

    /// <summary>Gives up what was prepared and not used.</summary>
    public void Dispose() => _prepared?.Dispose();
}
