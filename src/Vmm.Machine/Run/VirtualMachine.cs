using Vmm.Interop.Kvm;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Mem;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Serial;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Build;
using Vmm.Machine.Description;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Moving;
using Vmm.Machine.Numa;
using Vmm.Machine.Ram;
using Vmm.Machine.Resources;
using Vmm.Machine.Saved;
using Vmm.Memory;
using Vmm.Memory.Paging;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>
/// One virtual machine in this process: built by <see cref="MachineBuilder"/>, run once, torn down. What it takes is released in reverse
/// order, also when building fails half way; guest memory goes after everything that could touch it.
/// </summary>
public sealed class VirtualMachine : IDisposable
{
    private readonly Lock _runLock = new(); // held while it runs: nothing is freed beneath it; before that of its life
    private readonly Board _board;
    private readonly PlatformDevices _platform;
    private readonly GuestPanics _panics;
    private readonly DeviceSet _devices;
    private readonly VcpuSet _vcpus;
    private readonly VnodeSizes _sizes;
    private readonly ConsoleFeed _feed;
    private readonly MachineLife _life;
    private bool _disposed;

    private VirtualMachine(MachineParts parts)
    {
        (_board, _platform, _panics, _vcpus, _devices) = (parts.Board, parts.Platform, parts.Panics, parts.Vcpus, parts.Devices);
        (Vm, Fit, Paging) = (parts.Vm, parts.Fit, parts.Pager);
        VmSpec spec = _board.Spec;
        Balloon = _devices.Find<VirtioBalloon>();
        List<(int Vnode, VirtioMem Device)> memory = [];
        foreach (AttachedDevice device in _devices.All)
        {
            if (device is { Device: VirtioMem mem, Description.Vnode: { } vnode })
            {
                memory.Add((vnode, mem));
            }
        }

        _sizes = new VnodeSizes(spec.Name, spec.EffectiveVnodes, memory, Balloon);
        _feed = new ConsoleFeed(
            _board.Console, _board.End, _platform.Serial, PlatformDevices.IsConsoleOnSerial(spec), _devices.Find<VirtioConsole>());
        _life = new MachineLife(_board, _vcpus, _devices, _panics, _feed);
        _panics.Preserve = Preserve;
        Units = new UnitReport(this);
        _board.DiskStalls.Attach(_life, () => WaitingDisk.Of(_devices), TellStall);
    }

    /// <summary>The host fails requests of a disk; once per episode, on a thread of its own. The guest gets I/O errors meanwhile.</summary>
    public event EventHandler<DiskFaultEventArgs>? DiskFaulted
    {
        add => _board.DiskFaulted += value;
        remove => _board.DiskFaulted -= value;
    }

    /// <summary>
    /// The machine is paused because a disk waits for the host, or goes on by itself; on a thread of its own. A pause that ends by
    /// <see cref="Resume"/> is not told of.
    /// </summary>
    public event EventHandler<DiskStallEventArgs>? DiskStalled;

    /// <summary>The guest told of a panic, at most once of each kind; on a thread of its own.</summary>
    public event EventHandler<GuestPanicEventArgs>? GuestPanic
    {
        add => _panics.Told += value;
        remove => _panics.Told -= value;
    }

    /// <summary>
    /// A device is gone, its file or tap closed: the guest ejected it, or it was taken. Raised on a thread of its own, also for a removal
    /// that was refused before.
    /// </summary>
    public event EventHandler<DeviceRemovedEventArgs>? DeviceRemoved
    {
        add => _devices.Removal.Removed += value;
        remove => _devices.Removal.Removed -= value;
    }

    /// <summary>After a panic: the machine is <see cref="VmState.Crashed"/> from now on.</summary>
    public event EventHandler? Preserved;

    /// <summary>Builds the machine; nothing of the guest runs yet.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="note">Takes one-line remarks for the user, from any thread; null when nobody reads them.</param>
    /// <param name="variables">Keeps the variables of firmware beyond this machine, when the spec names no file for them.</param>
    /// <exception cref="KvmUnavailableException">No KVM, or no permission to use it.</exception>
    /// <exception cref="BootException">Kernel or initrd cannot be booted.</exception>
    /// <exception cref="BlockException">A disk cannot be opened.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused a resource.</exception>
    /// <exception cref="HostMismatchException">The spec asks for what this host does not have.</exception>
    public static VirtualMachine Create(
        VmSpec spec, IConsoleEndpoint console, Action<string>? note = null, MemoryVariables? variables = null) =>
        new(MachineBuilder.Build(
            DiskFiles.WithBacking(spec),
            new PathResources { Note = note, Variables = variables },
            console,
            note,
            prepared: null,
            boots: true));

    /// <summary>As the other, with resources that come from elsewhere; those it did not take stay the caller's.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="resources">Where everything comes from.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    public static VirtualMachine Create(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared) =>
        new(MachineBuilder.Build(spec, resources, console, note: null, prepared, boots: true));

    /// <summary>
    /// Builds the machine for a guest whose state comes from elsewhere: no kernel is opened, no byte of guest memory and no register of a
    /// vCPU is written beyond what KVM and CPUID give. Devices are as after a reset; no BAR has an address.
    /// </summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="resources">Where everything comes from; kernel and initrd are not asked for.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    public static VirtualMachine CreateWithoutBoot(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared) =>
        new(MachineBuilder.Build(spec, resources, console, note: null, prepared, boots: false));

    /// <summary>
    /// As the other, for a guest that was on a machine of this description: every device has the name and the place that it had.
    /// </summary>
    /// <param name="description">The machine; disks and network devices are asked for by their order in its spec.</param>
    /// <param name="resources">Where everything comes from; kernel and initrd are not asked for.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    /// <param name="lazily">Its memory comes while it runs.</param>
    /// <param name="received">Its memory, which came before; the machine's from here on, also when this throws.</param>
    internal static VirtualMachine CreateWithoutBoot(
        MachineDescription description, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared, bool lazily = false,
        ReceivedMemory? received = null) => new(MachineBuilder.Build(description, resources, console, prepared, lazily, received));

    /// <summary>Where it stands; any thread.</summary>
    public VmState State => _life.State;

    /// <summary>Counters now; any thread.</summary>
    public MachineCounters Counters
    {
        get
        {
            (List<DiskCounters> disks, List<NetDeviceCounters> nets, List<ShareCounters> shares) = _devices.Counters();
            return new MachineCounters(_vcpus.Exits, disks, nets, shares);
        }
    }

    /// <summary>Disks and network devices now, in the order they came. Any thread.</summary>
    public IReadOnlyList<PluggedDevice> Devices => _devices.Pluggable;

    /// <summary>The spec with the disks and network devices that are plugged now. Any thread.</summary>
    public VmSpec Spec => _devices.Spec;

    /// <summary>What the guest finds now, and where: what is built from it is the same machine. Any thread.</summary>
    public MachineDescription Description => _devices.Description;

    /// <summary>Rings (io_uring) that only wait which the devices use at most.</summary>
    public int WaitingRingsNeeded => _devices.WaitingRingsNeeded;

    /// <summary>Rings that reach files which the disks plugged now use at most. Any thread.</summary>
    public int FileRingsNeeded => _devices.FileRingsNeeded;

    /// <summary>What its parts ask of the kernel, with those that can be plugged in later.</summary>
    public MachineNeeds Needs
    {
        get
        {
            MachineNeeds needs = _board.Firmware is null ? Slots.Needs : Slots.Needs.WithFirmware();
            return Paging is null ? needs : needs.WithPaging();
        }
    }

    /// <summary>
    /// The memory balloon, for changing its target and reading statistics while the VM runs; null when the spec has none.
    /// </summary>
    public VirtioBalloon? Balloon { get; }

    /// <summary>Keeps its memory below the resident limit of its spec; null: all of it may be resident.</summary>
    public IMemoryPager? Pager => _board.Spec.Paging is null ? null : Paging;

    /// <summary>The lazy restore that it comes from; null: its memory was there when it began.</summary>
    public IMemoryRestore? MemoryRestore => Paging?.Restoring;

    /// <summary>What pages its memory: for good, or for a lazy restore.</summary>
    internal MemoryPager? Paging { get; }

    /// <summary>The guest told of a panic of its kernel.</summary>
    public bool GuestPanicked => _panics.HasPanicked;

    /// <summary>Where each vnode lives now. Any thread.</summary>
    public IReadOnlyList<VnodeHome> Homes => _board.Homes.Homes;

    /// <summary>How the vnodes of a spec with <c>fit: best</c> were mapped onto this host; null for others.</summary>
    public NumaFitResult? Fit { get; }

    /// <inheritdoc cref="VnodeHomes.Threads"/>
    public IReadOnlyList<HomedThread> HomedThreads => _board.Homes.Threads;

    /// <summary>Everything of it that has state, and what happens to that.</summary>
    public UnitReport Units { get; }

    /// <inheritdoc cref="VnodeSizes.States"/>
    public IReadOnlyList<VnodeMemoryState> VnodeStates => _sizes.States;

    /// <summary>What its parts are connected to.</summary>
    internal Board Board => _board;

    /// <summary>The vCPUs with their threads.</summary>
    internal VcpuSet VcpuSet => _vcpus;

    /// <summary>The KVM virtual machine.</summary>
    internal KvmVm Vm { get; }

    /// <summary>The guest's memory.</summary>
    internal GuestMemory Memory => _board.Memory.Guest;

    /// <summary>What changes which guest addresses are memory.</summary>
    internal MemoryMapOwner MapOwner => _board.Memory.Map;

    /// <summary>The vCPUs, by their index.</summary>
    internal List<KvmVcpu> Vcpus => _vcpus.All;

    /// <summary>Takes what the user types.</summary>
    internal ConsoleFeed Feed => _feed;

    /// <summary>What the guest was asked to have, and has.</summary>
    internal VnodeSizes Sizes => _sizes;

    /// <summary>The virtio devices.</summary>
    internal DeviceSet DeviceSet => _devices;

    /// <summary>The devices at fixed ports.</summary>
    internal PlatformDevices Platform => _platform;

    /// <summary>Where virtio devices are plugged in.</summary>
    internal VirtioSlots Slots => _devices.Slots;

    /// <summary>Plugs a disk in and tells the guest; whether it has a driver is its own affair. Any thread.</summary>
    /// <param name="spec">A validated disk; its transport is PCI.</param>
    /// <param name="backend">The opened disk, the machine's from here on, also when this throws.</param>
    /// <exception cref="HotplugException">It cannot be plugged.</exception>
    public PluggedDevice AddDisk(DiskSpec spec, IDiskBackend backend) => _devices.AddDisk(spec, backend);

    /// <summary>Begins to copy a disk to another storage, to go on there. Any thread.</summary>
    /// <param name="device">Its name.</param>
    /// <param name="spec">The disk as it shall be then.</param>
    /// <param name="target">The opened target, the machine's from here on, also when this throws.</param>
    /// <param name="wish">How.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out.</exception>
    /// <exception cref="BlockException">The target does not fit.</exception>
    /// <exception cref="TimeoutException">The disk hangs.</exception>
    public DiskCopy CopyDisk(string device, DiskSpec spec, IDiskBackend target, CopyRequest wish = default) =>
        _devices.CopyDisk(device, spec, target, wish);

    /// <summary>
    /// Puts empty differencing disks on disks, all at one instant: what was written before is below, and stays as it was. Any thread.
    /// </summary>
    /// <param name="overlays">A new image for each disk, the machine's from here on, also when this throws.</param>
    /// <param name="note">Takes remarks on the disks; null when nobody reads them.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out, or being copied.</exception>
    /// <exception cref="BlockException">A disk cannot have one more image: all are as they were.</exception>
    /// <exception cref="TimeoutException">A disk hangs: all are as they were.</exception>
    /// <param name="cut">Cuts the change logs of the disks that have one, at that instant.</param>
    public void SnapshotDisks(IReadOnlyList<DiskOverlay> overlays, Action<string>? note, bool cut = false) =>
        _devices.SnapshotDisks(overlays, cut, note);

    /// <inheritdoc cref="DeviceSet.Log"/>
    public void Log(string disk, FileDescriptorHandle? file) => _devices.Log(disk, file);

    /// <summary>Begins to bring into a disk's top image what it sees through images below, to go on without them. Any thread.</summary>
    /// <param name="device">Its name.</param>
    /// <param name="baseFile">The image on which it stands afterwards: its path, or the last part of that; null: none.</param>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; 0 is no limit.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out.</exception>
    /// <exception cref="BlockException">It is no image, has nothing to stream, or does not stand on that.</exception>
    public DiskStream StreamDisk(string device, string? baseFile, ulong bytesPerSecond) =>
        _devices.StreamDisk(device, baseFile, bytesPerSecond);

    /// <summary>Begins to commit a disk into an image of its own chain, to go on there then. Any thread.</summary>
    /// <param name="device">Its name.</param>
    /// <param name="file">The image, to be written; the machine's from here on, also when this throws.</param>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; 0 is no limit.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out.</exception>
    /// <exception cref="BlockException">It cannot be committed there: the machine goes on with the disk that it has.</exception>
    /// <exception cref="TimeoutException">The disk hangs; likewise.</exception>
    public DiskCommit CommitDisk(string device, RawFileBackend file, ulong bytesPerSecond) =>
        _devices.CommitDisk(device, file, bytesPerSecond);

    /// <summary>Plugs a network device in and tells the guest. Any thread.</summary>
    /// <param name="spec">A validated network device; its transport is PCI.</param>
    /// <param name="backend">The opened tap, the machine's from here on, also when this throws.</param>
    /// <exception cref="HotplugException">It cannot be plugged.</exception>
    public PluggedDevice AddNet(NetSpec spec, INetBackend backend) => _devices.AddNet(spec, backend);

    /// <inheritdoc cref="DeviceRemoval.RemoveAsync"/>
    public Task<RemovalOutcome> RemoveAsync(string name, TimeSpan patience, bool force, CancellationToken cancellation) =>
        _devices.Removal.RemoveAsync(name, patience, force, cancellation);

    /// <summary>Limits a disk (<c>disk0</c>) or network device (<c>net0</c>) from now on; null is no limit. Any thread.</summary>
    /// <exception cref="ArgumentException">There is no such device, or the limit is out of range.</exception>
    public void SetLimit(string device, RateLimit? limit) => _devices.SetLimit(device, limit);

    /// <inheritdoc cref="DeviceSet.RefreshDisk"/>
    public ulong RefreshDisk(string disk, ulong? bytes = null) => _devices.RefreshDisk(disk, bytes);

    /// <inheritdoc cref="VnodeSizes.Set"/>
    public void SetVnodeMemory(int vnode, ByteSize size, bool force = false) => _sizes.Set(vnode, size, force);

    /// <inheritdoc cref="VnodeSizes.SetBalloon"/>
    public void SetBalloon(ulong bytes) => _sizes.SetBalloon(bytes);

    /// <inheritdoc cref="VnodeHomes.Rehome"/>
    public PageMigrationResult Rehome(
        int vnode, IReadOnlyList<int> hostNodes, IReadOnlyList<int> hostCpus, ulong? bytesPerSecond,
        Action<double, ByteSize>? progress, CancellationToken cancel) =>
        _board.Homes.Rehome(vnode, hostNodes, hostCpus, bytesPerSecond, progress, cancel);

    /// <summary>
    /// Stops the vCPUs between two instructions, the guest's clock and the devices with them, and returns when all stand still. Requests
    /// already made finish; those of storage that hangs are waited for five seconds. Any thread.
    /// </summary>
    /// <exception cref="VmStateException">It does not run, or ended meanwhile.</exception>
    public void Pause() => _life.Pause();

    /// <summary>Brings the devices of a paused machine to rest, also again.</summary>
    internal void HoldDevices() => _life.HoldDevices();

    /// <inheritdoc cref="MachineLife.ClaimPause"/>
    internal object? ClaimPause() => _life.ClaimPause();

    /// <inheritdoc cref="MachineLife.ReturnPause"/>
    internal void ReturnPause(object? owner) => _life.ReturnPause(owner);

    /// <summary>Lets paused devices and vCPUs go on; the guest is told that it was paused, so that its watchdogs keep quiet. Any
    /// thread.</summary>
    /// <exception cref="VmStateException">It is not paused.</exception>
    public void Resume() => _life.Resume();

    /// <summary>
    /// Presses the ACPI power button (ACPI 6.5 section 4.8.3.1.2): an interrupt of the generic event device. A guest that sleeps does not
    /// hear that one, so it is woken. Any thread.
    /// </summary>
    public void PressPowerButton()
    {
        _platform.PowerButton.Set(true);
        _platform.PowerButton.Set(false);
        Wake();
    }

    /// <summary>
    /// Wakes a guest that sleeps (suspend-to-idle): the Wake key of its keyboard. Nothing happens to one that is awake. Any thread.
    /// </summary>
    public void Wake() => _platform.Keyboard.PressWakeKey();

    /// <inheritdoc cref="VirtioSerial.TryConnect"/>
    public FileDescriptorHandle? ConnectAgent(ReadOnlySpan<byte> farewell) => _devices.Find<VirtioSerial>()?.TryConnect(farewell);

    /// <summary>Runs the guest to its end. Cancelling <paramref name="stop"/> ends it like pulling the plug.</summary>
    public RunResult Run(CancellationToken stop) => Run(null, stop);

    /// <summary>As the other; calls <paramref name="started"/> once its state is <see cref="VmState.Running"/>.</summary>
    public RunResult Run(Action? started, CancellationToken stop)
    {
        lock (_runLock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _life.Run(started, stop);
        }
    }

    /// <summary>
    /// Ends the guest, when it still runs, waits until <see cref="Run(Action?, CancellationToken)"/> has returned on its thread, and frees
    /// everything. Any thread.
    /// </summary>
    public void Dispose()
    {
        _board.End.Decide(new RunResult(ExitReason.Stopped));
        lock (_runLock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
            _board.Homes.Gate.End();
            _sizes.Dispose();
            _life.End();
            _board.Dispose();
        }
    }

    private void Preserve()
    {
        if (_life.TryPreserve())
        {
            Preserved?.Invoke(this, EventArgs.Empty);
        }
    }

    private void TellStall(DiskStallEventArgs stall)
    {
        string problem = stall.Fault == DiskStatus.NoSpace
            ? "the host's file system has no space left"
            : "the host fails its requests with I/O errors";
        _board.Note?.Invoke($"{Spec.Name}: {stall.Disk} ({stall.Path}): "
            + (stall.Waits ? $"{problem}; the VM is paused, and its requests are kept" : "there is space again: the VM goes on"));
        DiskStalled?.Invoke(this, stall);
    }
}
