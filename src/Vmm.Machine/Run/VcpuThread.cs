using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.LifeCycle;

namespace Vmm.Machine.Run;

/// <summary>
/// One vCPU and the thread that runs it: enters KVM, gives port and MMIO exits to the buses, ends on request or on error.
/// </summary>
internal sealed class VcpuThread
{
    private const int MostPendingExits = 4096;

    private readonly KvmVcpu _vcpu;
    private readonly int _index;
    private readonly AddressBus _ports;
    private readonly AddressBus _mmio;
    private readonly IGuestPhysicalMemory _memory;
    private readonly EmulationAssist _assist;
    private readonly ExitLog _log = new();
    private readonly MachineEnd _end;
    private readonly PauseGate _gate;
    private readonly Action? _place;
    private readonly Thread _thread;
    private long _exits;

    internal VcpuThread(KvmVcpu vcpu, int index, AddressBus ports, AddressBus mmio, IGuestPhysicalMemory memory, MachineEnd end,
        PauseGate gate, Action? place)
    {
        _vcpu = vcpu;
        _index = index;
        _ports = ports;
        _mmio = mmio;
        _memory = memory;
        _assist = new EmulationAssist(vcpu, memory);
        _end = end;
        _gate = gate;
        _place = place;
        _thread = new Thread(Loop, maxStackSize: 256 * 1024) { Name = "vcpu" + index, IsBackground = true };
    }

    /// <summary>The guest was told to reboot by a triple fault: one that is made on purpose is no crash.</summary>
    internal bool TripleFaultResets { get; init; }

    /// <summary>How often the guest may lock the memory bus; shared by the vCPUs of the machine.</summary>
    internal required RatePace BusLocks { get; init; }

    /// <summary>KVM exits so far; written by the vCPU's own thread only.</summary>
    internal long Exits => Volatile.Read(ref _exits);

    /// <summary>True when it was this vCPU that ended the machine by a fault. After <see cref="Join"/>.</summary>
    internal bool Crashed { get; private set; }

    /// <summary>
    /// What the vCPU looked like when it stopped: all of it when it crashed, otherwise where it stood. After <see cref="Join"/>.
    /// </summary>
    internal IReadOnlyList<string> Report() => Crashed
        ? [$"vCPU {_index}, which crashed:", .. VcpuReport.Full(_vcpu, _memory).Select(line => "  " + line), "  last exits: "
            + _log.Describe()]
        : [$"vCPU {_index}: {VcpuReport.Brief(_vcpu, _memory)}", "  last exits: " + _log.Describe(most: 4)];

    internal void Start() => _thread.Start();

    /// <summary>Makes the thread leave KVM_RUN and look at <see cref="MachineEnd"/>.</summary>
    internal void Kick() => _vcpu.Kick();

    /// <summary>Tells the guest that it was paused; only while the vCPU stands still.</summary>
    internal void NotifyPaused() => _vcpu.NotifyPaused();

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
            int turn = _gate.Turn;
            while (!_end.Decided)
            {
                if (_gate.Closed)
                {
                    CompletePendingIo();
                    _gate.Park();
                    continue;
                }

                if (_gate.Turn != turn)
                {
                    turn = _gate.Rest();
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
            Crash(Failed(cause.Message));
        }
    }

    // The instruction of the last exit ends here, so that the registers of a vCPU at rest are whole. A string instruction may bring more
    // exits; a guest that
    // makes too many of them is stopped amid one, and cannot be saved at this moment.
    private void CompletePendingIo()
    {
        KvmExit exit = KvmExit.Interrupted;
        for (int i = 0; i < MostPendingExits && !_end.Decided; i++)
        {
            exit = _vcpu.CompletePendingIo();
            if (exit == KvmExit.Interrupted)
            {
                break;
            }

            Dispatch(exit);
        }

        HasPendingIo = exit != KvmExit.Interrupted;
    }

    /// <summary>It stands amid an instruction. While it is at rest.</summary>
    internal bool HasPendingIo { get; private set; }

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
                _log.Add(exit, isWrite: true, _vcpu.MmioAddress, _vcpu.MmioData);
                break;
            case KvmExit.Mmio:
                _mmio.Read(_vcpu.MmioAddress, _vcpu.MmioData);
                _log.Add(exit, isWrite: false, _vcpu.MmioAddress, _vcpu.MmioData);
                break;
            case KvmExit.Shutdown:
                Shutdown();
                break;
            case KvmExit.InternalError:
                if (!_assist.TryAssist(out string failure))
                {
                    Crash(Failed(failure));
                }

                break;
            case KvmExit.SystemEvent:
                _end.Decide(new RunResult(_vcpu.SystemEvent.Type == 1 ? ExitReason.PowerOff : ExitReason.Reset));
                break;
            case KvmExit.BusLock:
                BusLocks.Wait(() => _end.Decided || _gate.Closed);
                break;
            case KvmExit.Notify when !_vcpu.IsContextLost:
                break; // the exit itself let the host's events in
            case KvmExit.Notify:
                Crash(Failed("it kept the processor from taking any event, and its state is lost by that"));
                break;
            case KvmExit.FailEntry:
                Crash(Failed($"the processor refused the guest state, reason 0x{_vcpu.FailEntry.HardwareReason:x}"));
                break;
            default:
                Crash(Failed($"KVM came back with exit {exit}, which nothing here expects"));
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

        _log.Add(KvmExit.Io, _vcpu.IoIsWrite, _vcpu.IoPort, data);
    }

    /// <summary>
    /// A triple fault. Linux makes one on purpose with an IDT of no length. Where the registers are lost the command line alone must do.
    /// </summary>
    private void Shutdown()
    {
        KvmRegs regs = _vcpu.GetRegs();
        KvmSregs sregs = _vcpu.GetSregs();
        bool lost = VcpuReport.IsReset(regs, sregs);
        if (TripleFaultResets && (lost || sregs.Idt.Limit == 0))
        {
            _end.Decide(
                new RunResult(ExitReason.Reset, Message: "the guest reset itself by a triple fault, as reboot=t of its command line says"));
            return;
        }

        string where = lost
            ? $"vCPU {_index}; its registers are lost, as on every AMD host"
            : $"vCPU {_index} at RIP 0x{regs.Rip:x}, CR2 0x{sregs.Cr2:x}";
        Crash(new RunResult(ExitReason.TripleFault, Message: where));
    }

    private void Crash(RunResult result)
    {
        Crashed = true;
        _end.Decide(result);
    }

    private RunResult Failed(string why) => new(ExitReason.Failed, Message: $"vCPU {_index}: {why}");
}
