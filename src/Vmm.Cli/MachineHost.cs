using System.Runtime.ExceptionServices;
using Vmm.Machine.Run;
using Vmm.Machine.Spec;

namespace Vmm.Cli;

/// <summary>The one place where the command line meets the machine.</summary>
internal sealed class MachineHost : IDisposable
{
    private readonly object _gate = new(); // a Monitor: the lightest that can be waited for
    private EmptyVm? _prepared;
    private ExceptionDispatchInfo? _failure;
    private bool _preparing;

    /// <summary>Work for a thread that the caller has to spare, and will do: it makes what needs no spec. What fails there is told by <see cref="Run"/>.</summary>
    internal Action Prepare()
    {
        _preparing = true;
        return MakeEmptyVm;
    }

    /// <summary>Builds the VM of a spec and runs it to its end.</summary>
    internal RunResult Run(VmSpec spec, IConsoleEndpoint console, Action<string>? note, CancellationToken stop)
    {
        using VirtualMachine machine = VirtualMachine.Create(spec, console, note, Take);
        return machine.Run(stop);
    }

    /// <summary>Gives up what was prepared and not used.</summary>
    public void Dispose() => _prepared?.Dispose();

    private void MakeEmptyVm()
    {
        EmptyVm? made = null;
        try
        {
            made = EmptyVm.Create();
        }
#pragma warning disable CA1031 // Thrown again where the caller handles errors of the machine.
        catch (Exception e)
#pragma warning restore CA1031
        {
            _failure = ExceptionDispatchInfo.Capture(e);
        }

        lock (_gate)
        {
            _prepared = made;
            _preparing = false;
            Monitor.PulseAll(_gate);
        }

        try
        {
            made?.WarmUp();
        }
#pragma warning disable CA1031 // The machine itself does the same, and tells what is wrong.
        catch (Exception)
#pragma warning restore CA1031
        {
        }
    }

    private EmptyVm Take()
    {
        lock (_gate)
        {
            while (_preparing)
            {
                Monitor.Wait(_gate);
            }

            _failure?.Throw();
            EmptyVm? prepared = _prepared;
            _prepared = null;
            return prepared ?? EmptyVm.Create();
        }
    }
}
