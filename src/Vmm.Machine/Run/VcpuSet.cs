using Vmm.Devices.Virtio;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Build;
using Vmm.Machine.Cpu;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>The vCPUs of a machine and their threads.</summary>
internal sealed class VcpuSet
{
    // Every lock stops all processors of the host for a moment. No sound guest does it often.
    private const ulong BusLocksPerSecond = 1000;

    // vCPUs told of after a crash; the rest of a large machine adds nothing but lines.
    private const int MostCrashed = 2, MostOthers = 7;

    private readonly PauseGate _gate;
    private readonly List<VcpuThread> _threads = [];

    /// <param name="board">What they are connected to.</param>
    /// <param name="kvm">The VM, with its boot CPU.</param>
    /// <param name="cpu">The processor.</param>
    /// <param name="topology">Where each is.</param>
    /// <param name="boot">Where the first one starts; null leaves every register as a reset does.</param>
    internal VcpuSet(Board board, EmptyVm kvm, GuestCpu cpu, CpuTopology topology, InitialCpuState? boot)
    {
        _gate = board.Gate;
        bool deadline = kvm.System.CheckExtension(Interop.Kvm.KvmCapability.TscDeadlineTimer) != 0;
        if (cpu.HasWideApicIds)
        {
            kvm.Vm.EnableWideApicIds();
            kvm.Interrupts.UseWideDestinations();
        }

        PhysicalMemory physical = new(board.Memory.Guest);
        uint[] brand = ProcessorBrand.Read();
        bool byTripleFault = RebootArgument.AsksForTripleFault(board.Spec.Boot.Cmdline);
        RatePace busLocks = new(BusLocksPerSecond);
        foreach (VcpuPlace place in topology.Vcpus)
        {
            KvmVcpu vcpu = place.ApicId == EmptyVm.BootVcpuId ? kvm.BootVcpu : board.Own(kvm.Vm.CreateVcpu(place.ApicId));
            VcpuSetup.Apply(
                vcpu, CpuidModel.Build(cpu.Cpuid, topology, place, deadline, brand), cpu.FeatureMsrs, place.Index == 0 ? boot : null,
                board.Spec.Boot.IsFirmware);
            All.Add(vcpu);
            _threads.Add(
                new VcpuThread(
                    vcpu, place.Index, board.Ports, board.Mmio, physical, board.End, board.Gate, board.Homes.WhenVcpuStarts(place.Vnode))
                {
                    TripleFaultResets = byTripleFault,
                    BusLocks = busLocks,
                });
        }

        VcpuSetup.CompleteApicMap(All[^1]);
    }

    /// <summary>The vCPUs, by number.</summary>
    internal List<KvmVcpu> All { get; } = [];

    /// <summary>KVM exits so far. Any thread.</summary>
    internal long Exits
    {
        get
        {
            long exits = 0;
            foreach (VcpuThread vcpu in _threads)
            {
                exits += vcpu.Exits;
            }

            return exits;
        }
    }

    internal void Start()
    {
        foreach (VcpuThread vcpu in _threads)
        {
            vcpu.Start();
        }
    }

    /// <summary>Makes every vCPU leave the guest and look at gate and end.</summary>
    internal void Kick()
    {
        foreach (VcpuThread vcpu in _threads)
        {
            vcpu.Kick();
        }
    }

    /// <summary>Makes all of them wait at the closed gate; false when the machine ended instead.</summary>
    internal bool Park()
    {
        Kick();
        return _gate.WaitParked(_threads.Count);
    }

    /// <summary>One of them stands amid an instruction; only while they stand still.</summary>
    internal bool HasPendingIo => _threads.Exists(vcpu => vcpu.HasPendingIo);

    /// <summary>Tells the guest that it was paused; only while the vCPUs stand still.</summary>
    internal void NotifyPaused()
    {
        foreach (VcpuThread vcpu in _threads)
        {
            vcpu.NotifyPaused();
        }
    }

    /// <summary>Ends the threads.</summary>
    internal void End()
    {
        _gate.End();
        Kick();
        foreach (VcpuThread vcpu in _threads)
        {
            vcpu.Join();
        }
    }

    /// <summary>The vCPU that crashed, and where the others stood: they were kicked at once. After <see cref="End"/>.</summary>
    internal List<string> CrashReport()
    {
        List<string> lines = [];
        IEnumerable<VcpuThread> crashed = _threads.Where(v => v.Crashed).Take(MostCrashed);
        foreach (VcpuThread vcpu in crashed.Concat(_threads.Where(v => !v.Crashed).Take(MostOthers)))
        {
            lines.AddRange(vcpu.Report());
        }

        return lines;
    }

    private sealed class PhysicalMemory(GuestMemory memory) : IGuestPhysicalMemory
    {
        public bool TryRead(ulong guestPhysical, Span<byte> destination) => memory.TryRead(new GuestAddress(guestPhysical), destination);

        public bool TryWrite(ulong guestPhysical, ReadOnlySpan<byte> source) => memory.TryWrite(new GuestAddress(guestPhysical), source);
    }
}
