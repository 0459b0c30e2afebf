using Vmm.Interop.Kvm;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Devices.Virtio;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Description;
using Vmm.Machine.Firmware;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Machine.Moving;
using Vmm.Machine.Numa;
using Vmm.Machine.Ram;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Memory.Paging;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Build;

/// <summary>Puts a machine together, by a description or by one that it makes from a spec.</summary>
internal sealed class MachineBuilder : IDisposable
{
    private readonly Board _board;
    private readonly EmptyVm? _prepared;
    private readonly ReceivedMemory? _received;
    private bool _built;

    private MachineBuilder(
        VmSpec spec,
        IMachineResources resources,
        IConsoleEndpoint console,
        Action<string>? note,
        EmptyVm? prepared,
        ReceivedMemory? received = null)
    {
        _board = new Board(spec, resources, console, note);
        (_prepared, _received) = (prepared, received);
    }

    private VmSpec Spec => _board.Spec;

    /// <summary>Builds a machine as a spec says.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="resources">Where everything comes from.</param>
    /// <param name="console">Far side of the consoles.</param>
    /// <param name="note">Takes remarks for the user; null when nobody reads them.</param>
    /// <param name="prepared">An empty VM to build in, which is the machine's from here on, also when this throws; null makes one.</param>
    /// <param name="boots">Writes the start of a guest into memory and registers; false leaves both untouched.</param>
    internal static MachineParts Build(
        VmSpec spec, IMachineResources resources, IConsoleEndpoint console, Action<string>? note, EmptyVm? prepared, bool boots)
    {
        NumaFitResult? fit = null;
        try
        {
            spec = spec.Numa is null ? spec : HostFit.Project(spec, out fit);
        }
        catch
        {
            prepared?.Dispose();
            throw;
        }

        if (fit is not null)
        {
            note?.Invoke($"{spec.Name}: {fit.Text}");
        }

        using MachineBuilder builder = new(spec, resources, console, note, prepared);
        return builder.Build(description: null, boots, fit);
    }

    /// <summary>Builds the machine of a description, without boot.</summary>
    /// <param name="description">The machine.</param>
    /// <param name="resources">Where everything comes from.</param>
    /// <param name="console">Far side of the consoles.</param>
    /// <param name="prepared">An empty VM to build in, which is the machine's from here on, also when this throws; null makes one.</param>
    /// <param name="received">Its memory, when that came before it; the machine's from here on, also when this throws.</param>
    internal static MachineParts Build(
        MachineDescription description,
        IMachineResources resources,
        IConsoleEndpoint console,
        EmptyVm? prepared,
        ReceivedMemory? received = null)
    {
        using MachineBuilder builder = new(description.Spec, resources, console, note: null, prepared, received);
        return builder.Build(description, boots: false, fit: null);
    }

    private MachineParts Build(MachineDescription? description, bool boots, NumaFitResult? fit)
    {
        CheckRings();
        // The probe times a guest loop (25 ms on an emulating KVM): beside the set-up, and only for someone who reads notes.
        Thread? probe = _board.Note is { } note
            ? new Thread(() => ProbeKvm(note), maxStackSize: 256 * 1024) { Name = "kvm-probe", IsBackground = true }
            : null;
        probe?.Start();
        if (Spec.Boot.IsFirmware)
        {
            _board.Firmware = _board.Own(new FirmwareBoard(new FirmwareImages(Spec.Boot, _board.Resources)));
        }

        GuestStart? start = boots && !Spec.Boot.IsFirmware ? _board.Own(new GuestStart(Spec, _board.Resources)) : null;
        EmptyVm kvm = _board.Own(_prepared ?? EmptyVm.Create(_board.Resources.OpenKvm()));
        description ??= MachineDescription.FromSpec(Spec, kvm.HostCpu);
        MemoryMap map = new(description.Ram, description.Hot, description.PciWindow64);
        BuildMemory(description, kvm);
        CpuTopology topology = CpuTopology.Of(Spec);
        CheckPlaces(description, topology);
        GuestCpu cpu = GuestCpu.Create(Spec.Name, description.Cpu, kvm.HostCpu, topology, kvm.Vm.CheckExtension);

        GuestPanics panics = new(_board);
        PlatformDevices platform = new(_board, panics);
        DeviceSet devices = BuildDevices(description, kvm.Vm, map, placeBars: start is not null);
        // It knows all memory now, and nobody has touched it yet.
        MemoryPager? pager = Spec.Paging is { } paging ? BuildPager(paging) : null;
        AttachFirmware(description, map, topology, platform, devices, boots);
        BootInfo? boot = start?.Write(_board.Memory.Guest, map, topology, devices, description.Cpu);
        VcpuSet vcpus = new(_board, kvm, cpu, topology, boot?.Cpu);
        probe?.Join();
        _built = true;
        return new MachineParts(_board, kvm.Vm, platform, panics, devices, vcpus, fit, pager);
    }

    /// <summary>Releases what was taken, when building failed.</summary>
    public void Dispose()
    {
        if (!_built)
        {
            _board.Dispose();
            _prepared?.Dispose();
            _received?.Dispose();
        }
    }

    private void BuildMemory(MachineDescription description, EmptyVm kvm)
    {
        IReadOnlyList<VnodeHome> homes;
        MachineMemory memory;
        if (_received is { } received)
        {
            homes = received.Homes;
            memory = _board.Memory = _board.Own(received.Take());
        }
        else
        {
            HostTopology host = NumaPlacement.NeedsHost(Spec) ? HostTopology.Read() : HostTopology.Unknown;
            homes = NumaPlacement.Place(Spec, host);
            memory = _board.Memory = _board.Own(new MachineMemory(description.Ram, homes, host));
        }

        _board.Homes = new VnodeHomes(Spec.Name, _board.Resources.Threads, homes, memory);
        _board.Clock = new GuestClock(kvm.Vm);
        memory.Show(kvm.Vm);
        kvm.Complete(); // after the slots, which would wait for what it starts in the kernel
        _board.Interrupts = kvm.Interrupts;
    }

    private DeviceSet BuildDevices(MachineDescription description, KvmVm vm, MemoryMap map, bool placeBars)
    {
        _board.Doorbells = new KvmDoorbells(vm);
        BarMappings mappings = new(
            _board.Memory.Map, Spec.Boot.IsFirmware ? MemoryMap.FirmwareWindow32 : MemoryMap.PciWindow32, map.PciWindow64);
        VirtioSlots slots = _board.Own(
            new VirtioSlots(
                map,
                mappings,
                _board.Memory.Guest,
                _board.Interrupts,
                _board.Doorbells,
                _board.Mmio,
                description.Pci,
                description.Devices.Count(device => device.MmioSlot is not null),
                _board.Homes.IoThreads));
        _board.ResetControl = new Devices.Legacy.ResetControl(slots.Bridge.ConfigPorts, _board.Reset);
        _board.Ports.Map(0xCF8, 8, _board.ResetControl, "PCI configuration ports");
        if (_board.Firmware is null)
        {
            _board.Mmio.Map(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, slots.Bridge.Ecam, "ECAM");
        }

        DeviceSet devices = new(_board, description, slots);
        devices.Build(placeBars);
        return devices;
    }

    private MemoryPager BuildPager(PagingSpec paging)
    {
        using FileDescriptorHandle device = _board.Resources.OpenUserfault();
        FileDescriptorHandle file = _board.Resources.OpenSwap(paging);
        SwapStore store;
        try
        {
            store = new SwapStore(file, PagingSpec.SwapLimit(Spec));
        }
        catch (SwapStoreException cause)
        {
            file.Dispose();
            throw new HostMismatchException($"{Spec.Name}: memory.swap: {cause.Message}", cause);
        }
        catch
        {
            file.Dispose();
            throw;
        }

        try
        {
            return _board.Memory.Page(new PagerParts(
                device,
                store,
                [],
                Spec.ResidentLimit,
                (_board.Resources.Threads ?? (IIoThreads)PlainIoThreads.Instance).Start,
                reason => _board.End.Decide(new RunResult(ExitReason.Failed, Message: $"{Spec.Name}: {reason}"))));
        }
        catch
        {
            store.Dispose();
            throw;
        }
    }

    private void AttachFirmware(
        MachineDescription description, MemoryMap map, CpuTopology topology, PlatformDevices platform, DeviceSet devices, bool boots)
    {
        if (_board.Firmware is not { } firmware)
        {
            return;
        }

        firmware.Tell(GuestTables.DescribeSmbios(Spec, map, topology, description.Cpu));
        firmware.Attach(_board, map, GuestTables.Describe(Spec, map, topology, devices), devices, description.Pci, platform.Rtc);
        EcamPlace ecam = new(_board.Mmio, devices.Slots.Bridge.Ecam);
        devices.Slots.Bridge.EcamMoved = at =>
        {
            ecam.Move(at);
            firmware.EcamMoved(at);
        };
        if (boots)
        {
            GuestTables.WriteGenerationId(Spec, _board.Memory.Guest);
        }
    }

    // The topology of CPUID comes from the spec; the description says what the guest saw.
    private void CheckPlaces(MachineDescription description, CpuTopology topology)
    {
        for (int i = 0; i < topology.Vcpus.Count; i++)
        {
            if (topology.Vcpus[i].ApicId != description.Vcpus[i].ApicId || topology.Vcpus[i].Vnode != description.Vcpus[i].Vnode)
            {
                throw new HostMismatchException(
                    $"{Spec.Name}: vCPU {i} had APIC id {description.Vcpus[i].ApicId} and would have {topology.Vcpus[i].ApicId}: "
                    + "take a release that knows this topology");
            }
        }
    }

    // Devices sleep in rings on threads that start with their driver. What is missing is told before there is a guest that waits for ever.
    private void CheckRings()
    {
        try
        {
            if (DeviceCount.Pci(Spec) + DeviceCount.Mmio(Spec) > 0)
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
                note(
                    "this /dev/kvm only emulates kernel code (no VMX/SVM): micro-guests run, "
                    + "a stock Linux kernel will not get far in useful time");
            }
        }
        catch (Exception cause) when (cause is KvmUnavailableException or KernelException or InvalidOperationException)
        {
            // The machine itself meets the same trouble and reports it.
        }
    }
}

/// <summary>What a machine is made of.</summary>
internal sealed record MachineParts(
    Board Board, KvmVm Vm, PlatformDevices Platform, GuestPanics Panics, DeviceSet Devices, VcpuSet Vcpus, NumaFitResult? Fit,
    MemoryPager? Pager);
