using Vmm.Devices.Acpi;
using Vmm.Devices.Legacy;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Rng;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Machine.Ram;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <content>Putting the machine together: memory, devices, vCPUs.</content>
public sealed partial class VirtualMachine
{
    // Every lock stops all processors of the host for a moment. No sound guest does it often.
    private const ulong BusLocksPerSecond = 1000;

    private const int MostOtherRings = 4; // random numbers, balloon, sockets, console; memory has one a vnode

    private void Build(Action<string>? note, EmptyVm? prepared)
    {
        CheckRings();
        // The probe times a guest loop (25 ms on an emulating KVM): beside the set-up, and only for someone who reads notes.
        Thread? probe = note is null ? null : new Thread(() => ProbeKvm(note), maxStackSize: 256 * 1024) { Name = "kvm-probe", IsBackground = true };
        probe?.Start();
        KernelImage? kernel = _boots ? Own(KernelImage.Load(_resources.OpenKernel(_spec.Boot))) : null;
        BootFile? initrd = _boots && _spec.Boot.Initrd is not null ? Own(_resources.OpenInitrd(_spec.Boot)) : null;

        Own(_end);
        HostTopology host = NumaPlacement.NeedsHost(_spec) ? HostTopology.Read() : HostTopology.Unknown;
        IReadOnlyList<VnodeHome> homes = NumaPlacement.Place(_spec, host);
        Settle(homes);
        EmptyVm kvm = Own(prepared ?? EmptyVm.Create(_resources.OpenKvm()));
        MemoryMap map = MemoryMap.Create(VnodeSizes(), CpuidModel.PhysicalAddressBits(kvm.SupportedCpuid), HasHotMemory ? HotSizes() : null);
        GuestMemory memory = Memory = BuildMemory(map, homes, host);
        KvmVm vm = Vm = kvm.Vm;
        _clock = new GuestClock(vm);
        MapOwner = new MemoryMapOwner(memory.Ram, new KvmMemorySlots(vm));
        kvm.Complete(); // after the slots, which would wait for what it starts in the kernel
        KvmInterrupts interrupts = kvm.Interrupts;
        BuildLegacyDevices(interrupts);
        BuildPanicDevice(note);
        VirtioSlots slots = BuildVirtioDevices(vm, map, memory, interrupts);
        if (map.Hot.Count > 0)
        {
            BuildMemoryDevices(slots, map, homes, host);
        }

        BuildHotplug(slots, interrupts);
        CpuTopology topology = Topology();
        GuestCpu cpu = GuestCpu.Create(_spec, kvm.HostCpu, topology, kvm.Vm.CheckExtension);
        BootInfo? boot = kernel is null ? null : LoadBoot(kernel, initrd, memory, map, topology, slots);
        BuildVcpus(kvm, cpu, topology, memory, boot);
        probe?.Join();
    }

    /// <summary>Rings (io_uring) that only wait which the devices use at most: one for each device that is no disk. Any thread.</summary>
    public int WaitingRingsNeeded => MostOtherRings + _spec.EffectiveVnodes.Count;

    /// <summary>The same for rings that reach files: one for each thread that serves queues of a disk. Any thread.</summary>
    public int DiskRingsNeeded => Spec.Disks.Sum(d => d.Queues);

    // Devices sleep in rings on threads that start with their driver. What is missing is told before there is a guest that waits for ever.
    private void CheckRings()
    {
        try
        {
            if (_spec.Disks.Count > 0 || _spec.Rng || WantsParavirtualDevices || HasHotMemory)
            {
                IoUringPool.Check();
            }
        }
        catch (IoUringUnavailableException cause)
        {
            throw new HostMismatchException(cause.Message, cause);
        }
    }

    private static void ProbeKvm(Action<string> note)
    {
        try
        {
            using KvmSystem kvm = KvmSystem.Open();
            if (KvmKindProbe.Detect(kvm) == KvmKind.Emulating)
            {
                note("this /dev/kvm only emulates kernel code (no VMX/SVM): micro-guests run, a stock Linux kernel will not get far in useful time");
            }
        }
        catch (Exception cause) when (cause is KvmUnavailableException or KernelException or InvalidOperationException)
        {
            // The machine itself meets the same trouble and reports it.
        }
    }

    private GuestMemory BuildMemory(MemoryMap map, IReadOnlyList<VnodeHome> homes, HostTopology host)
    {
        VnodeMemory?[] vnodes = homes.Count == 1 ? OneVnode(homes[0], host) : VnodesSideBySide(homes, host);

        GuestRegion[] regions = new GuestRegion[map.Ram.Count];
        for (int i = 0; i < regions.Length; i++)
        {
            RamExtent extent = map.Ram[i];
            regions[i] = vnodes[extent.Vnode]!.Region(extent.Start, extent.Length, extent.BackingOffset);
        }

        return new GuestMemory(regions);
    }

    private VnodeMemory[] OneVnode(VnodeHome home, HostTopology host)
    {
        VnodeMemory[] one = new VnodeMemory[1];
        one[0] = Remember(0, VnodeMemory.Create(home.Memory, host));
        return one;
    }

    /// <summary>
    /// What touches in guest addresses touches here too, so that a buffer over the border of two vnodes is one range for devices. Only a vnode of
    /// huge pages behind one whose size is not a multiple of them starts at the next multiple.
    /// </summary>
    private VnodeMemory?[] VnodesSideBySide(IReadOnlyList<VnodeHome> homes, HostTopology host)
    {
        ulong[] offsets = new ulong[homes.Count];
        ulong length = 0, alignment = ByteSize.BytesPerPage;
        for (int i = 0; i < offsets.Length; i++)
        {
            ulong page = homes[i].Memory.PageSize;
            offsets[i] = (length + page - 1) & ~(page - 1);
            length = offsets[i] + homes[i].Memory.Size;
            alignment = Math.Max(alignment, page);
        }

        AddressReservation addresses = Own(new AddressReservation(length, alignment));
        VnodeMemory?[] vnodes = new VnodeMemory?[homes.Count];
        for (int i = 0; i < vnodes.Length; i++)
        {
            vnodes[i] = homes[i].Memory.Size > 0 ? Remember(i, VnodeMemory.Create(homes[i].Memory, host, within: addresses, offset: offsets[i])) : null;
        }

        return vnodes;
    }

    private void BuildLegacyDevices(KvmInterrupts interrupts)
    {
        _powerButton = interrupts.CreateLine(PowerButtonGsi);
        if (_spec.Serial)
        {
            _serial = Own(new SerialPort(interrupts.CreateLine(SerialGsi), ConsoleOnSerial ? new ConsoleSink(_console) : new NoSink()));
            _ports.Map(0x3F8, 8, _serial, "serial port");
        }

        if (_spec.DebugExit)
        {
            _ports.Map(DebugExitPort.Port, 4, new DebugExitPort(code => _end.Decide(new RunResult(RunOutcome.DebugExit, code))), "debug exit");
        }

        // Not 0x61: speaker and gate of the timer belong to the kernel's PIT.
        _keyboard = new I8042(Reset, interrupts.CreateLine(KeyboardGsi));
        _ports.Map(I8042.DataPort, 1, _keyboard.Data, "i8042 data");
        _ports.Map(I8042.CommandPort, 1, _keyboard.Command, "i8042 command");
        _ports.Map(0x70, 2, new CmosRtc(), "RTC");
        _ports.Map(SystemControlPortA.Port, 1, new SystemControlPortA(Reset), "system control port A");
        _ports.Map(AcpiPowerPorts.Port, 2, new AcpiPowerPorts(() => _end.Decide(new RunResult(RunOutcome.PowerOff))), "ACPI power");
        _ports.Map(AcpiPmTimer.Port, AcpiPmTimer.Length, new AcpiPmTimer(_clock), "ACPI PM timer");
    }

    private void Reset() => _end.Decide(new RunResult(RunOutcome.Reset));

    private VirtioSlots BuildVirtioDevices(KvmVm vm, MemoryMap map, GuestMemory memory, KvmInterrupts interrupts)
    {
        _doorbells = new KvmDoorbells(vm);
        BarMappings mappings = new(MapOwner, MemoryMap.PciWindow32, map.PciWindow64);
        VirtioSlots slots =
            Own(new VirtioSlots(map, mappings, memory, interrupts, _doorbells, _mmio, DeviceSlots.Bridges(DeviceCount.Pci(_spec)), IoThreads));
        _ports.Map(0xCF8, 8, new ResetControl(slots.Bridge.ConfigPorts, Reset), "PCI configuration ports");
        _mmio.Map(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, slots.Bridge.Ecam, "ECAM");
        if (_spec.Disks.Count > 0)
        {
            BuildDisks(slots);
        }

        if (_spec.Nets.Count > 0)
        {
            BuildNets(slots);
        }

        if (_spec.Rng)
        {
            slots.Attach("rng", new VirtioRng(), _spec.VirtioTransport);
        }

        if (WantsParavirtualDevices)
        {
            BuildParavirtualDevices(slots);
        }

        return slots;
    }

    private void BuildDisks(VirtioSlots slots)
    {
        for (int i = 0; i < _spec.Disks.Count; i++)
        {
            DiskSpec disk = _spec.Disks[i];
            string name = $"disk{_disksEver++}";
            VirtioBlk device = MakeDisk(name, disk, _resources.OpenDisk(i, disk));
            Record(new Pluggable(name, slots.Attach(name, device, disk.Transport ?? _spec.VirtioTransport), disk, device));
        }
    }

    /// <summary>The device in front of an opened disk, which is closed when that fails.</summary>
    private VirtioBlk MakeDisk(string name, DiskSpec disk, IDiskBackend backend)
    {
        PlaceNear(name, disk.Vnode);
        VirtioBlk device;
        try
        {
            device = new VirtioBlk(backend, DiskFront.Options(name, disk, _spec.Cpus), status => _diskFaults.Report(name, disk.Path, status));
        }
        catch
        {
            backend.Dispose();
            throw;
        }

        if (disk.Limits is { } limits)
        {
            device.SetLimit(RateLimits.Of(limits));
        }

        return device;
    }

    private ByteSize[] VnodeSizes()
    {
        IReadOnlyList<VnodeSpec> vnodes = _spec.EffectiveVnodes;
        ByteSize[] sizes = new ByteSize[vnodes.Count];
        for (int i = 0; i < sizes.Length; i++)
        {
            sizes[i] = vnodes[i].BootMemory;
        }

        return sizes;
    }

    private CpuTopology Topology()
    {
        int[] vnodeOfVcpu = VnodeOfVcpu();
        return _spec.Topology is { } wish && wish.Shape(_spec.Cpus, VnodesWithCpus()) is { } shape ? CpuTopology.Create(vnodeOfVcpu, shape) : CpuTopology.Create(vnodeOfVcpu);
    }

    private int VnodesWithCpus()
    {
        int count = 0;
        foreach (VnodeSpec vnode in _spec.EffectiveVnodes)
        {
            count += vnode.Cpus.Count > 0 ? 1 : 0;
        }

        return count;
    }

    private int[] VnodeOfVcpu()
    {
        int[] vnodes = new int[_spec.Cpus];
        for (int vnode = 0; vnode < _spec.EffectiveVnodes.Count; vnode++)
        {
            foreach (int cpu in _spec.EffectiveVnodes[vnode].Cpus)
            {
                vnodes[cpu] = vnode;
            }
        }

        return vnodes;
    }

    private void BuildVcpus(EmptyVm kvm, GuestCpu cpu, CpuTopology topology, GuestMemory memory, BootInfo? boot)
    {
        bool deadline = kvm.System.CheckExtension(KvmCapability.TscDeadlineTimer) != 0;
        if (cpu.HasWideApicIds)
        {
            kvm.Vm.EnableWideApicIds();
            kvm.Interrupts.UseWideDestinations();
        }

        PhysicalMemory physical = new(memory);
        uint[] brand = ProcessorBrand.Read();
        bool byTripleFault = RebootArgument.AsksForTripleFault(_spec.Boot.Cmdline);
        RatePace busLocks = new(BusLocksPerSecond);
        KvmVcpu last = kvm.BootVcpu;
        foreach (VcpuPlace place in topology.Vcpus)
        {
            KvmVcpu vcpu = place.ApicId == EmptyVm.BootVcpuId ? kvm.BootVcpu : Own(kvm.Vm.CreateVcpu(place.ApicId));
            last = vcpu;
            VcpuSetup.Apply(vcpu, CpuidModel.Build(cpu.Cpuid, topology, place, deadline, brand), cpu.FeatureMsrs, place.Index == 0 ? boot?.Cpu : null);
            Vcpus.Add(vcpu);
            _vcpus.Add(new VcpuThread(vcpu, place.Index, _ports, _mmio, physical, _end, _gate, WhenVcpuStarts(place.Vnode))
            {
                TripleFaultResets = byTripleFault,
                BusLocks = busLocks,
            });
        }

        VcpuSetup.CompleteApicMap(last);
    }

    private sealed class PhysicalMemory(GuestMemory memory) : IGuestPhysicalMemory
    {
        public bool TryRead(ulong guestPhysical, Span<byte> destination) => memory.TryRead(new GuestAddress(guestPhysical), destination);

        public bool TryWrite(ulong guestPhysical, ReadOnlySpan<byte> source) => memory.TryWrite(new GuestAddress(guestPhysical), source);
    }
}
