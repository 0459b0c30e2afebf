using Vmm.Devices.Acpi;
using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Rng;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Layout;
using Vmm.Machine.Resources;
using Vmm.Machine.Spec;
using Vmm.Memory;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>
/// One virtual machine in this process: built from a spec, run once, torn down. What it takes is released in reverse order,
/// also when building fails half way; guest memory goes last, after everything that could touch it.
/// </summary>
public sealed partial class VirtualMachine : IDisposable
{
    private const uint PowerButtonGsi = 3, SerialGsi = 4;

    private readonly List<IDisposable> _owned = [];
    private readonly List<VcpuThread> _vcpus = [];
    private readonly List<BlkCounters> _disks = [];
    private readonly MachineEnd _end = new();
    private readonly PauseGate _gate = new();
    private readonly Lock _stateLock = new();
    private readonly IMachineResources _resources;
    private readonly AddressBus _ports = new("ports");
    private readonly AddressBus _mmio = new("MMIO");
    private readonly IConsoleEndpoint _console;
    private readonly VmSpec _spec;
    private MachineState _state;
    private IInterruptLine? _powerButton;
    private SerialPort? _serial;
    private Thread? _serialInput;
    private bool _disposed;

    private VirtualMachine(VmSpec spec, IMachineResources resources, IConsoleEndpoint console)
    {
        _resources = resources;
        _spec = spec;
        _console = console;
    }

    /// <summary>Builds the machine; nothing of the guest runs yet.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="note">Takes one-line remarks for the user, from any thread; null when nobody reads them.</param>
    /// <exception cref="KvmUnavailableException">No KVM, or no permission to use it.</exception>
    /// <exception cref="BootException">Kernel or initrd cannot be booted.</exception>
    /// <exception cref="BlockException">A disk cannot be opened.</exception>
    /// <exception cref="KernelException">The kernel refused a resource.</exception>
    /// <exception cref="ArgumentException">The spec asks for what this host does not have.</exception>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on; null makes one.</param>
    public static VirtualMachine Create(VmSpec spec, IConsoleEndpoint console, Action<string>? note = null, EmptyVm? prepared = null) =>
        Create(spec, new PathResources(), console, note, prepared);

    /// <summary>As the other, with resources that come from elsewhere; those it did not take stay the caller's.</summary>
    public static VirtualMachine Create(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, Action<string>? note = null, EmptyVm? prepared = null)
    {
        VirtualMachine machine = new(spec, resources, console);
        try
        {
            machine.Build(note, machine.Own(prepared ?? EmptyVm.Create(resources.OpenKvm())));
            return machine;
        }
        catch
        {
            machine.Dispose();
            throw;
        }
    }

    /// <summary>Where it stands; any thread.</summary>
    public MachineState State
    {
        get
        {
            lock (_stateLock)
            {
                return _state;
            }
        }
    }

    /// <summary>Counters now; any thread.</summary>
    public MachineCounters Counters
    {
        get
        {
            long exits = 0;
            foreach (VcpuThread vcpu in _vcpus)
            {
                exits += vcpu.Exits;
            }

            return new MachineCounters(exits, _disks);
        }
    }

    /// <summary>Stops the vCPUs between two instructions and returns when all stand still. Disk requests already made still finish. Any thread.</summary>
    /// <exception cref="MachineStateException">It does not run, or ended meanwhile.</exception>
    public void Pause()
    {
        lock (_stateLock)
        {
            CheckMove(MachineState.Paused, from: MachineState.Running);
            _gate.Close();
            foreach (VcpuThread vcpu in _vcpus)
            {
                vcpu.Kick();
            }

            if (!_gate.WaitParked(_vcpus.Count))
            {
                throw new MachineStateException(MachineState.Ended, MachineState.Paused);
            }

            _state = MachineState.Paused;
        }
    }

    /// <summary>Lets paused vCPUs go on. Any thread.</summary>
    /// <exception cref="MachineStateException">It is not paused.</exception>
    public void Resume()
    {
        lock (_stateLock)
        {
            CheckMove(MachineState.Running, from: MachineState.Paused); // from Ready, only Run
            _gate.Open();
            _state = MachineState.Running;
        }
    }

    /// <summary>Presses the ACPI power button (ACPI 6.5 section 4.8.3.1.2): an interrupt of the generic event device. Any thread.</summary>
    public void PressPowerButton()
    {
        _powerButton?.Set(true);
        _powerButton?.Set(false);
    }

    /// <summary>Runs the guest to its end. Cancelling <paramref name="stop"/> ends it like pulling the plug.</summary>
    public RunResult Run(CancellationToken stop) => Run(null, stop);

    /// <summary>As the other; calls <paramref name="started"/> once its state is <see cref="MachineState.Running"/>.</summary>
    public RunResult Run(Action? started, CancellationToken stop)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        using CancellationTokenRegistration registration = stop.Register(() => _end.Decide(new RunResult(RunOutcome.Stopped)));
        lock (_stateLock)
        {
            CheckMove(MachineState.Running, from: MachineState.Ready);
            foreach (VcpuThread vcpu in _vcpus)
            {
                vcpu.Start();
            }

            _state = MachineState.Running;
        }

        started?.Invoke();
        if (_virtioConsole is { } console)
        {
            _serialInput = new Thread(() => FeedVirtioConsole(console), maxStackSize: 256 * 1024) { Name = "console-input", IsBackground = true };
            _serialInput.Start();
        }
        else if (_serial is { } serial)
        {
            _serialInput = new Thread(() => FeedSerial(serial), maxStackSize: 256 * 1024) { Name = "serial-input", IsBackground = true };
            _serialInput.Start();
        }

        RunResult result = WithPanic(_end.Wait());
        StopVcpus();
        return result;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _end.Decide(new RunResult(RunOutcome.Stopped));
        StopVcpus();
        for (int i = _owned.Count - 1; i >= 0; i--)
        {
            _owned[i].Dispose();
        }
    }

    private void CheckMove(MachineState to, MachineState from)
    {
        if (_state != from || !MachineLifecycle.CanMove(_state, to))
        {
            throw new MachineStateException(_state, to);
        }
    }

    private void StopVcpus()
    {
        _gate.End();
        foreach (VcpuThread vcpu in _vcpus)
        {
            vcpu.Kick();
        }

        foreach (VcpuThread vcpu in _vcpus)
        {
            vcpu.Join();
        }

        _serial?.Close();
        _virtioConsole?.Close();
        _console.StopReading();
        _serialInput?.Join();
        lock (_stateLock)
        {
            _state = MachineState.Ended;
        }
    }

    private T Own<T>(T owned) where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }

    private void Build(Action<string>? note, EmptyVm kvm)
    {
        // The probe times a guest loop (25 ms on an emulating KVM): beside the set-up, and only for someone who reads notes.
        Thread? probe = note is null ? null : new Thread(() => ProbeKvm(note), maxStackSize: 256 * 1024) { Name = "kvm-probe", IsBackground = true };
        probe?.Start();
        KernelImage kernel = Own(KernelImage.Load(_resources.OpenKernel(_spec.Boot)));
        BootFile? initrd = _spec.Boot.Initrd is not null ? Own(_resources.OpenInitrd(_spec.Boot)) : null;

        Own(_end);
        HostTopology host = NumaPlacement.NeedsHost(_spec) ? HostTopology.Read() : HostTopology.Unknown;
        IReadOnlyList<VnodeHome> homes = NumaPlacement.Place(_spec, host);
        MemoryMap map = MemoryMap.Create(VnodeSizes(), CpuidModel.PhysicalAddressBits(kvm.SupportedCpuid));
        GuestMemory memory = BuildMemory(map, homes, host);
        KvmVm vm = kvm.Vm;
        ReadOnlySpan<GuestRegion> regions = memory.RegionSpan;
        for (int slot = 0; slot < regions.Length; slot++)
        {
            ref readonly GuestRegion region = ref regions[slot];
            vm.SetMemorySlot((uint)slot, region.Start.Value, region.Length, region.HostAddress);
        }

        KvmInterrupts interrupts = kvm.Interrupts;
        BuildLegacyDevices(interrupts);
        BuildPanicDevice(note);
        VirtioSlots slots = BuildVirtioDevices(memory, interrupts, new KvmDoorbells(vm), homes);

        CpuTopology topology = CpuTopology.Create(VnodeOfVcpu());
        BootInfo boot = LoadBoot(kernel, initrd, memory, map, topology, slots.KernelArguments);
        BuildVcpus(kvm, topology, memory, boot, homes);
        probe?.Join();
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
        one[0] = Own(VnodeMemory.Create(home.Memory, host));
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
            vnodes[i] = homes[i].Memory.Size > 0 ? Own(VnodeMemory.Create(homes[i].Memory, host, within: addresses, offset: offsets[i])) : null;
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

        _ports.Map(0x60, 5, new I8042(Reset), "i8042");
        _ports.Map(0x70, 2, new CmosRtc(), "RTC");
        _ports.Map(AcpiPowerPorts.Port, 3, new AcpiPowerPorts(() => _end.Decide(new RunResult(RunOutcome.PowerOff)), Reset), "ACPI power");
    }

    private void Reset() => _end.Decide(new RunResult(RunOutcome.Reset));

    private VirtioSlots BuildVirtioDevices(GuestMemory memory, KvmInterrupts interrupts, KvmDoorbells doorbells, IReadOnlyList<VnodeHome> homes)
    {
        VirtioSlots slots = Own(new VirtioSlots(memory, interrupts, doorbells, _mmio));
        _ports.Map(0xCF8, 8, slots.Bridge.ConfigPorts, "PCI configuration ports");
        _mmio.Map(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, slots.Bridge.Ecam, "ECAM");
        if (_spec.Disks.Count > 0)
        {
            BuildDisks(slots, homes);
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

    private void BuildDisks(VirtioSlots slots, IReadOnlyList<VnodeHome> homes)
    {
        for (int i = 0; i < _spec.Disks.Count; i++)
        {
            DiskSpec disk = _spec.Disks[i];
            IReadOnlyList<int> cpus = homes[0].HostCpus;
            VirtioBlkOptions options = new()
            {
                Name = $"disk{i}",
                Serial = disk.Serial ?? $"vmm-disk{i}",
                QueueCount = disk.Queues,
                QueueSize = disk.QueueSize,
                ThreadStarted = cpus.Count > 0 ? _ => ThreadPlacement.PinCurrent(cpus) : null,
            };
            VirtioBlk device = new(_resources.OpenDisk(i, disk), options);
            _disks.Add(device.Counters);
            slots.Attach(options.Name, device, disk.Transport ?? _spec.VirtioTransport);
        }
    }

    private ByteSize[] VnodeSizes()
    {
        IReadOnlyList<VnodeSpec> vnodes = _spec.EffectiveVnodes;
        ByteSize[] sizes = new ByteSize[vnodes.Count];
        for (int i = 0; i < sizes.Length; i++)
        {
            sizes[i] = vnodes[i].Memory;
        }

        return sizes;
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

    private BootInfo LoadBoot(KernelImage kernel, BootFile? initrd, GuestMemory memory, MemoryMap map, CpuTopology topology, List<string> mmioArguments)
    {
        int vnodes = _spec.EffectiveVnodes.Count;
        AcpiConfig acpi = new()
        {
            Processors = Processors(topology),
            Memory = Memory(map),
            Distances = _spec.Numa is { } numa ? numa.Distances ?? DefaultDistances(vnodes) : null,
            EcamBase = MemoryMap.Ecam.Start,
            Window32Start = MemoryMap.PciWindow32.Start,
            Window32Length = MemoryMap.PciWindow32.Length,
            Window64Start = map.PciWindow64.Start,
            Window64Length = map.PciWindow64.Length,
            Serial = _spec.Serial,
            PvPanic = _spec.PvPanic,
            GenerationId = _spec.GenerationId is { } id ? WriteGenerationId(memory, id) : null,
            PowerButtonGsi = PowerButtonGsi,
        };
        GuestAddress rsdp = new(BootLayout.AcpiTables);
        byte[] tables = AcpiTables.Build(acpi, rsdp, AcpiRoom);
        if (!memory.TryWrite(rsdp, tables))
        {
            throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
        }

        return BootLoader.Load(memory, new BootRequest
        {
            Kernel = kernel,
            Initrd = initrd,
            CommandLine = string.Join(' ', [_spec.Boot.Cmdline, .. mmioArguments]).Trim(),
            AcpiRsdp = rsdp,
            Reserved = [new BootMemoryRange(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, BootMemoryRange.Reserved)],
        });
    }

    private static AcpiProcessor[] Processors(CpuTopology topology)
    {
        AcpiProcessor[] processors = new AcpiProcessor[topology.Vcpus.Count];
        for (int i = 0; i < processors.Length; i++)
        {
            processors[i] = new AcpiProcessor(topology.Vcpus[i].ApicId, topology.Vcpus[i].Vnode);
        }

        return processors;
    }

    private static AcpiMemory[] Memory(MemoryMap map)
    {
        AcpiMemory[] memory = new AcpiMemory[map.Ram.Count];
        for (int i = 0; i < memory.Length; i++)
        {
            memory[i] = new AcpiMemory(map.Ram[i].Start, map.Ram[i].Length, map.Ram[i].Vnode);
        }

        return memory;
    }

    private static IReadOnlyList<int>[] DefaultDistances(int vnodes)
    {
        IReadOnlyList<int>[] rows = new IReadOnlyList<int>[vnodes];
        for (int from = 0; from < vnodes; from++)
        {
            int[] row = new int[vnodes];
            Array.Fill(row, 20);
            row[from] = 10;
            rows[from] = row;
        }

        return rows;
    }

    private void BuildVcpus(EmptyVm kvm, CpuTopology topology, GuestMemory memory, BootInfo boot, IReadOnlyList<VnodeHome> homes)
    {
        bool deadline = kvm.System.CheckExtension(KvmCapability.TscDeadlineTimer) != 0;
        PhysicalMemory physical = new(memory);
        foreach (VcpuPlace place in topology.Vcpus)
        {
            KvmVcpu vcpu = place.ApicId == EmptyVm.BootVcpuId ? kvm.BootVcpu : Own(kvm.Vm.CreateVcpu(place.ApicId));
            vcpu.SetCpuid(CpuidModel.Build(kvm.SupportedCpuid, topology, place, deadline));
            VcpuSetup.SetFirmwareMsrs(vcpu);
            if (place.Index == 0)
            {
                VcpuSetup.SetBootCpu(vcpu, boot.Cpu);
            }

            IReadOnlyList<int> cpus = homes[place.Vnode].HostCpus;
            _vcpus.Add(new VcpuThread(vcpu, place.Index, _ports, _mmio, new EmulationAssist(vcpu, physical), _end, _gate, cpus.Count > 0 ? () => ThreadPlacement.PinCurrent(cpus) : null));
        }
    }

    private void FeedSerial(SerialPort serial)
    {
        Span<byte> input = stackalloc byte[256];
        while (!_end.Decided)
        {
            int count = _console.Read(input);
            if (count == 0 || serial.Send(input[..count]) < count)
            {
                return;
            }
        }
    }

    private sealed class ConsoleSink(IConsoleEndpoint console) : ISerialSink, Vmm.Devices.Virtio.Console.IConsoleSink
    {
        public void Write(ReadOnlySpan<byte> bytes) => console.Write(bytes);
    }

    private sealed class PhysicalMemory(GuestMemory memory) : IGuestPhysicalMemory
    {
        public bool TryRead(ulong guestPhysical, Span<byte> destination) => memory.TryRead(new GuestAddress(guestPhysical), destination);

        public bool TryWrite(ulong guestPhysical, ReadOnlySpan<byte> source) => memory.TryWrite(new GuestAddress(guestPhysical), source);
    }
}
