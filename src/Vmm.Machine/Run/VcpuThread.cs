using Vmm.Devices.Bus;
using Vmm.Kvm;

namespace Vmm.Machine.Run;

/// <summary>One vCPU and the thread that runs it: enters KVM, gives port and MMIO exits to the buses, ends on request or on error.</summary>
internal sealed class VcpuThread
{
    private readonly KvmVcpu _vcpu;
    private readonly int _index;
    private readonly AddressBus _ports;
    private readonly AddressBus _mmio;
    private readonly EmulationAssist _assist;
    private readonly MachineEnd _end;
    private readonly Action? _place;
    private readonly Thread _thread;

    internal VcpuThread(KvmVcpu vcpu, int index, AddressBus ports, AddressBus mmio, EmulationAssist assist, MachineEnd end, Action? place)
    {
        _vcpu = vcpu;
        _index = index;
        _ports = ports;
        _mmio = mmio;
        _assist = assist;
        _end = end;
        _place = place;
        _thread = new Thread(Loop, maxStackSize: 256 * 1024) { Name = $"vcpu{index}", IsBackground = true };
    }

    internal void Start() => _thread.Start();

    /// <summary>Makes the thread leave KVM_RUN and look at <see cref="MachineEnd"/>.</summary>
    internal void Kick() => _vcpu.Kick();

    internal void Join() => _thread.Join();

    private void Loop()
    {
        try
        {
            _place?.Invoke();
            while (!_end.Decided)
            {
                Dispatch(_vcpu.Run());
            }
        }
        catch (Exception cause) when (cause is not OutOfMemoryException)
        {
            // A fault of ours on a vCPU thread must end this VM with its reason, not the process without one.
            _end.Decide(RunResult.Failed($"vCPU {_index}: {cause.Message}"));
        }
    }

    private void Dispatch(KvmExitReason exit)
    {
        switch (exit)
        {
            case KvmExitReason.Interrupted:
                break;
            case KvmExitReason.Io:
                Port();
                break;
            case KvmExitReason.Mmio:
                Mmio();
                break;
            case KvmExitReason.Shutdown:
                _end.Decide(new RunResult(RunResultKind.TripleFault, 1, $"vCPU {_index}: triple fault"));
                break;
            case KvmExitReason.InternalError:
                Assist();
                break;
            default:
                _end.Decide(RunResult.Failed($"vCPU {_index}: KVM ended with exit {exit}"));
                break;
        }
    }
}
