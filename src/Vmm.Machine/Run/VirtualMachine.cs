using Vmm.Interop.Kvm;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Mem;
using Vmm.Devices.Virtio.Net;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Build;
using Vmm.Machine.Description;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Numa;
using Vmm.Machine.Ram;
using Vmm.Machine.Resources;
using Vmm.Memory;
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
    private static readonly TimeSpan s_restPatience = TimeSpan.FromSeconds(5);

    private readonly Lock _runLock = new(); // held while it runs: nothing is freed beneath it; before the other
    private readonly Lock _stateLock = new();
    private readonly Board _board;
    private readonly PlatformDevices _platform;
    private readonly GuestPanics _panics;
    private readonly DeviceSet _devices;
    private readonly VcpuSet _vcpus;
    private readonly VnodeSizes _sizes;
    private readonly ConsoleFeed _feed;
    private readonly DeviceRest _rest;
    private MachineState _state;
    private bool _disposed;

    private VirtualMachine(MachineParts parts)
    {
        (_board, _platform, _panics, _vcpus, _devices) = (parts.Board, parts.Platform, parts.Panics, parts.Vcpus, parts.Devices);
        (Vm, Fit) = (parts.Vm, parts.Fit);
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
        _panics.Preserve = Preserve;
        _rest = new DeviceRest(_devices);
    }

    /// <summary>The host fails requests of a disk; once per episode, on a thread of its own. The guest gets I/O errors meanwhile.</summary>
    public event EventHandler<DiskFaultEventArgs>? DiskFaulted
    {
        add => _board.DiskFaulted += value;
        remove => _board.DiskFaulted -= value;
    }

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

    /// <summary>After a panic: the machine is <see cref="MachineState.Crashed"/> from now on.</summary>
    public event EventHandler? Preserved;

    /// <summary>Builds the machine; nothing of the guest runs yet.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="note">Takes one-line remarks for the user, from any thread; null when nobody reads them.</param>
    /// <exception cref="KvmUnavailableException">No KVM, or no permission to use it.</exception>
    /// <exception cref="BootException">Kernel or initrd cannot be booted.</exception>
    /// <exception cref="BlockException">A disk cannot be opened.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused a resource.</exception>
    /// <exception cref="HostMismatchException">The spec asks for what this host does not have.</exception>
    public static VirtualMachine Create(VmSpec spec, IConsoleEndpoint console, Action<string>? note = null) =>
        new(MachineBuilder.Build(spec, new PathResources(), console, note, prepared: null, boots: true));

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
    public static VirtualMachine CreateWithoutBoot(
        MachineDescription description, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared) =>
        new(MachineBuilder.Build(description, resources, console, prepared));

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
            (List<DiskCounters> disks, List<NetDeviceCounters> nets) = _devices.Counters();
            return new MachineCounters(_vcpus.Exits, disks, nets);
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
    public MachineNeeds Needs => Slots.Needs;

    /// <summary>
    /// The memory balloon, for changing its target and reading statistics while the VM runs; null when the spec has none.
    /// </summary>
    public VirtioBalloon? Balloon { get; }

    /// <summary>The guest told of a panic of its kernel.</summary>
    public bool GuestPanicked => _panics.HasPanicked;

    /// <summary>Where each vnode lives now. Any thread.</summary>
    public IReadOnlyList<VnodeHome> Homes => _board.Homes.Homes;

    /// <summary>How the vnodes of a spec with <c>fit: best</c> were mapped onto this host; null for others.</summary>
    public NumaFitResult? Fit { get; }

    /// <inheritdoc cref="VnodeHomes.Threads"/>
    public IReadOnlyList<HomedThread> HomedThreads => _board.Homes.Threads;

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

    /// <inheritdoc cref="VnodeSizes.Set"/>
    public void SetVnodeMemory(int vnode, ByteSize size, bool force = false) => _sizes.Set(vnode, size, force);

    /// <inheritdoc cref="VnodeSizes.SetBalloon"/>
    public void SetBalloon(ulong bytes) => _sizes.SetBalloon(bytes);

    /// <inheritdoc cref="VnodeHomes.Rehome"/>
    public PageMigrationResult Rehome(
        int vnode,
        IReadOnlyList<int> hostNodes,
        IReadOnlyList<int> hostCpus,
        ulong? bytesPerSecond,
        Action<double, ByteSize>? progress,
        CancellationToken cancel) =>
        _board.Homes.Rehome(vnode, hostNodes, hostCpus, bytesPerSecond, progress, cancel);

    /// <summary>
    /// Stops the vCPUs between two instructions, the guest's clock and the devices with them, and returns when all stand still. Requests
    /// already made finish; those of storage that hangs are waited for five seconds. Any thread.
    /// </summary>
    /// <exception cref="MachineStateException">It does not run, or ended meanwhile.</exception>
    public void Pause()
    {
        lock (_stateLock)
        {
            CheckMove(MachineState.Paused, from: MachineState.Running);
            _board.Gate.Close();
            if (!_vcpus.Park())
            {
                throw new MachineStateException(MachineState.Ended, MachineState.Paused);
            }

            _board.Clock.Stop();
            HoldDevices();
            _state = MachineState.Paused;
        }
    }

    /// <summary>Brings the devices of a paused machine to rest, also again.</summary>
    internal void HoldDevices() => _rest.TryHold(s_restPatience);

    /// <summary>Lets paused devices and vCPUs go on; the guest is told that it was paused, so that its watchdogs keep quiet. Any
    /// thread.</summary>
    /// <exception cref="MachineStateException">It is not paused.</exception>
    public void Resume()
    {
        lock (_stateLock)
        {
            CheckMove(MachineState.Running, from: MachineState.Paused); // from Ready, only Run
            _rest.Resume();
            _board.Clock.Start();
            _vcpus.NotifyPaused();
            _board.Gate.Open();
            _state = MachineState.Running;
        }
    }

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

    /// <summary>Runs the guest to its end. Cancelling <paramref name="stop"/> ends it like pulling the plug.</summary>
    public RunResult Run(CancellationToken stop) => Run(null, stop);

    /// <summary>As the other; calls <paramref name="started"/> once its state is <see cref="MachineState.Running"/>.</summary>
    public RunResult Run(Action? started, CancellationToken stop)
    {
        lock (_runLock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return RunToEnd(started, stop);
        }
    }

    private RunResult RunToEnd(Action? started, CancellationToken stop)
    {
        using CancellationTokenRegistration registration = stop.Register(() => _board.End.Decide(new RunResult(RunOutcome.Stopped)));
        lock (_stateLock)
        {
            CheckMove(MachineState.Running, from: MachineState.Ready);
            _board.Restored?.Invoke();
            _vcpus.Start();
            _state = MachineState.Running;
        }

        started?.Invoke();
        _feed.Start();
        RunResult result = _panics.Apply(_board.End.Wait());
        StopVcpus();
        return result.Outcome is RunOutcome.TripleFault or RunOutcome.Failed ? result with { Report = _vcpus.CrashReport() } : result;
    }

    /// <summary>
    /// Ends the guest, when it still runs, waits until <see cref="Run(Action?, CancellationToken)"/> has returned on its thread, and frees
    /// everything. Any thread.
    /// </summary>
    public void Dispose()
    {
        _board.End.Decide(new RunResult(RunOutcome.Stopped));
        lock (_runLock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
            _board.Homes.Gate.End();
            _sizes.Dispose();
            StopVcpus();
            _board.Dispose();
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
        _vcpus.End();
        _devices.End();
        _devices.FlushDisks();
        _board.DiskFaults.End();
        _feed.End();
        lock (_stateLock)
        {
            _state = MachineState.Ended;
        }
    }

    /// <summary>After a panic: the vCPUs stand still for good, unless it ended meanwhile.</summary>
    private void Preserve()
    {
        lock (_stateLock)
        {
            if (!MachineLifecycle.CanMove(_state, MachineState.Crashed) || !_vcpus.Park())
            {
                return;
            }

            _state = MachineState.Crashed;
        }

        Preserved?.Invoke(this, EventArgs.Empty);
    }
}
