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
    private readonly PauseGate _gate;
    private readonly Action? _place;
    private readonly Thread _thread;
    private long _exits;

    internal VcpuThread(KvmVcpu vcpu, int index, AddressBus ports, AddressBus mmio, EmulationAssist assist, MachineEnd end, PauseGate gate, Action? place)
    {
        _vcpu = vcpu;
        _index = index;
        _ports = ports;
        _mmio = mmio;
        _assist = assist;
        _end = end;
        _gate = gate;
        _place = place;
        _thread = new Thread(Loop, maxStackSize: 256 * 1024) { Name = "vcpu" + index, IsBackground = true };
    }

    /// <summary>KVM exits so far; written by the vCPU's own thread only.</summary>
    internal long Exits => Volatile.Read(ref _exits);

    internal void Start() => _thread.Start();

    /// <summary>Makes the thread leave KVM_RUN and look at <see cref="MachineEnd"/>.</summary>
    internal void Kick() => _vcpu.Kick();

    internal void Join()
    {
        if ((_thread.ThreadState & ThreadState.Unstarted) == 0)
        {
            _thread.Join();
        }
    }

    private void Loop()
    {
        try
        {
            _place?.Invoke();
            while (!_end.Decided)
            {
                if (_gate.Closed)
                {
                    _gate.Park();
                    continue;
                }

                KvmExit exit = _vcpu.Run();
                Volatile.Write(ref _exits, _exits + 1);
                Dispatch(exit);
            }
        }
#pragma warning disable CA1031 // A fault of ours on a vCPU thread must end this VM with its reason, not the process without one.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _end.Decide(Failed(cause.Message));
        }
    }

    private void Dispatch(KvmExit exit)
    {
        switch (exit)
        {
            case KvmExit.Interrupted:
                break;
            case KvmExit.Io:
                Port();
                break;
            case KvmExit.Mmio when _vcpu.MmioIsWrite:
                _mmio.Write(_vcpu.MmioAddress, _vcpu.MmioData);
                break;
            case KvmExit.Mmio:
                _mmio.Read(_vcpu.MmioAddress, _vcpu.MmioData);
                break;
            case KvmExit.Shutdown:
                _end.Decide(new RunResult(RunOutcome.TripleFault, Message: $"vCPU {_index} at RIP 0x{_vcpu.GetRegs().Rip:x}, CR2 0x{_vcpu.GetSregs().Cr2:x}"));
                break;
            case KvmExit.InternalError:
                if (!_assist.TryAssist(out string failure))
                {
                    _end.Decide(Failed(failure));
                }

                break;
            case KvmExit.SystemEvent:
                _end.Decide(new RunResult(_vcpu.SystemEvent.Type == 1 ? RunOutcome.PowerOff : RunOutcome.Reset));
                break;
            case KvmExit.FailEntry:
                _end.Decide(Failed($"the processor refused the guest state, reason 0x{_vcpu.FailEntry.HardwareReason:x}"));
                break;
            default:
                _end.Decide(Failed($"KVM came back with exit {exit}, which nothing here expects"));
                break;
        }
    }

    /// <summary>A string instruction brings several items of one size.</summary>
    private void Port()
    {
        Span<byte> data = _vcpu.IoData;
        int size = _vcpu.IoSize;
        for (int at = 0; at + size <= data.Length; at += size)
        {
            if (_vcpu.IoIsWrite)
            {
                _ports.Write(_vcpu.IoPort, data.Slice(at, size));
            }
            else
            {
                _ports.Read(_vcpu.IoPort, data.Slice(at, size));
            }
        }
    }

    private RunResult Failed(string why) => new(RunOutcome.Failed, Message: $"vCPU {_index}: {why}");
}
