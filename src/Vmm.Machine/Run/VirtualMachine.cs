using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Layout;
using Vmm.Machine.Resources;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>
/// One virtual machine in this process: built from a spec, run once, torn down. What it takes is released in reverse order,
/// also when building fails half way; guest memory goes last, after everything that could touch it.
/// </summary>
public sealed partial class VirtualMachine : IDisposable
{
    internal const uint HotplugGsi = 23;

    private const uint KeyboardGsi = 1, PowerButtonGsi = 3, SerialGsi = 4;

    // vCPUs told of after a crash; the rest of a large machine adds nothing but lines.
    private const int MostCrashed = 2, MostOthers = 7;

    private readonly List<IDisposable> _owned = [];
    private readonly List<VcpuThread> _vcpus = [];
    private readonly MachineEnd _end = new();
    private readonly PauseGate _gate = new();
    private readonly Lock _stateLock = new();
    private readonly Lock _runLock = new(); // held while it runs: nothing is freed beneath it
    private readonly IMachineResources _resources;
    private readonly AddressBus _ports = new("ports");
    private readonly AddressBus _mmio = new("MMIO");
    private readonly IConsoleEndpoint _console;
    private readonly VmSpec _spec;
    private readonly DiskFaultNotifier _diskFaults;
    private Action<string>? _note;
    private bool _boots = true;
    private GuestClock? _clock;
    private MachineState _state;
    private IInterruptLine? _powerButton;
    private I8042? _keyboard;
    private SerialPort? _serial;
    private Thread? _serialInput;
    private KvmDoorbells? _doorbells;
    private bool _disposed;

    private VirtualMachine(VmSpec spec, IMachineResources resources, IConsoleEndpoint console)
    {
        _resources = resources;
        _spec = spec;
        _console = console;
        _diskFaults = new DiskFaultNotifier(resources.Threads, TellDiskFault);
    }

    /// <summary>The host fails requests of a disk; once per episode, on a thread of its own. The guest gets I/O errors meanwhile.</summary>
    public event EventHandler<DiskFaultEventArgs>? DiskFaulted;

    /// <summary>Builds the machine; nothing of the guest runs yet.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="note">Takes one-line remarks for the user, from any thread; null when nobody reads them.</param>
    /// <exception cref="KvmUnavailableException">No KVM, or no permission to use it.</exception>
    /// <exception cref="BootException">Kernel or initrd cannot be booted.</exception>
    /// <exception cref="BlockException">A disk cannot be opened.</exception>
    /// <exception cref="KernelException">The kernel refused a resource.</exception>
    /// <exception cref="HostMismatchException">The spec asks for what this host does not have.</exception>
    public static VirtualMachine Create(VmSpec spec, IConsoleEndpoint console, Action<string>? note = null) =>
        Create(spec, new PathResources(), console, note, prepared: null);

    /// <summary>As the other, with resources that come from elsewhere; those it did not take stay the caller's.</summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="resources">Where everything comes from.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    public static VirtualMachine Create(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared) =>
        Create(spec, resources, console, note: null, prepared);

    /// <summary>
    /// Builds the machine for a guest whose state comes from elsewhere: no kernel is opened, no byte of guest memory and no register of a vCPU is written beyond
    /// what KVM and CPUID give. Devices are as after a reset.
    /// </summary>
    /// <param name="spec">A validated spec.</param>
    /// <param name="resources">Where everything comes from; kernel and initrd are not asked for.</param>
    /// <param name="console">Far side of the serial port.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    public static VirtualMachine CreateWithoutBoot(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared) =>
        Create(spec, resources, console, note: null, prepared, boots: false);

    /// <summary>The KVM virtual machine.</summary>
    internal KvmVm Vm { get; private set; } = null!;

    /// <summary>The guest's memory.</summary>
    internal GuestMemory Memory { get; private set; } = null!;

    /// <summary>What changes which guest addresses are memory.</summary>
    internal MemoryMapOwner MapOwner { get; private set; } = null!;

    /// <summary>The vCPUs, by their index.</summary>
    internal List<KvmVcpu> Vcpus { get; } = [];

    /// <summary>Where virtio devices are plugged in.</summary>
    internal VirtioSlots? Slots => _slots;

    private static VirtualMachine Create(
        VmSpec spec, IMachineResources resources, IConsoleEndpoint console, Action<string>? note, EmptyVm? prepared, bool boots = true)
    {
        VirtualMachine? machine = null;
        NumaFitResult? fit = null;
        try
        {
            machine = new VirtualMachine(spec.Numa is null ? spec : Projected(spec, out fit), resources, console) { Fit = fit };
            if (fit is not null)
            {
                note?.Invoke($"{spec.Name}: {fit.Text}");
            }

            (machine._note, machine._boots) = (note, boots);
            machine.Build(note, prepared);
            return machine;
        }
        catch
        {
            machine?.Dispose();
            prepared?.Dispose();
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

            return new MachineCounters(exits, DiskCountersNow(), NetCountersNow());
        }
    }

    /// <summary>
    /// Stops the vCPUs between two instructions, and the guest's clock with them, and returns when all stand still. Disk requests already made still
    /// finish. Any thread.
    /// </summary>
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

            _clock?.Stop();
            _state = MachineState.Paused;
        }
    }

    /// <summary>Lets paused vCPUs go on; the guest is told that it was paused, so that its watchdogs keep quiet. Any thread.</summary>
    /// <exception cref="MachineStateException">It is not paused.</exception>
    public void Resume()
    {
        lock (_stateLock)
        {
            CheckMove(MachineState.Running, from: MachineState.Paused); // from Ready, only Run
            _clock?.Start();
            foreach (VcpuThread vcpu in _vcpus)
            {
                vcpu.NotifyPaused();
            }

            _gate.Open();
            _state = MachineState.Running;
        }
    }

    /// <summary>
    /// Presses the ACPI power button (ACPI 6.5 section 4.8.3.1.2): an interrupt of the generic event device. A guest that sleeps does not hear that one, so it
    /// is woken. Any thread.
    /// </summary>
    public void PressPowerButton()
    {
        _powerButton?.Set(true);
        _powerButton?.Set(false);
        Wake();
    }

    /// <summary>Wakes a guest that sleeps (suspend-to-idle): the Wake key of its keyboard. Nothing happens to one that is awake. Any thread.</summary>
    public void Wake() => _keyboard?.PressWakeKey();

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
            _serialInput = Started(new Thread(() => FeedVirtioConsole(console), maxStackSize: 256 * 1024) { Name = "console-input", IsBackground = true });
        }
        else if (_serial is { } serial)
        {
            _serialInput = Started(new Thread(() => FeedSerial(serial), maxStackSize: 256 * 1024) { Name = "serial-input", IsBackground = true });
        }

        RunResult result = WithPanic(_end.Wait());
        StopVcpus();
        return result.Outcome is RunOutcome.TripleFault or RunOutcome.Failed ? result with { Report = CrashReport() } : result;
    }

    /// <summary>Ends the guest, when it still runs, waits until <see cref="Run(Action?, CancellationToken)"/> has returned on its thread, and frees everything. Any thread.</summary>
    public void Dispose()
    {
        _end.Decide(new RunResult(RunOutcome.Stopped));
        lock (_runLock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
            _pacer?.Dispose();
            StopVcpus();
            _doorbells?.End();
            for (int i = _owned.Count - 1; i >= 0; i--)
            {
                _owned[i].Dispose();
            }
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

        EndPanics();
        EndHotplug();
        _diskFaults.End();

        _serial?.Close();
        _virtioConsole?.Close();
        _console.StopReading();
        _serialInput?.Join();
        lock (_stateLock)
        {
            _state = MachineState.Ended;
        }
    }

    /// <summary>The vCPU that crashed, and where the others stood: they were kicked at once.</summary>
    private List<string> CrashReport()
    {
        List<string> lines = [];
        foreach (VcpuThread vcpu in _vcpus.Where(v => v.Crashed).Take(MostCrashed).Concat(_vcpus.Where(v => !v.Crashed).Take(MostOthers)))
        {
            lines.AddRange(vcpu.Report());
        }

        return lines;
    }

    /// <summary>A thread that runs. One that cannot be started (no memory, too many) is kept nowhere: there would be nothing to join.</summary>
    private static Thread Started(Thread thread)
    {
        thread.Start();
        return thread;
    }

    private T Own<T>(T owned) where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }

    private void TellDiskFault(string disk, string path, DiskStatus status)
    {
        string problem = status == DiskStatus.NoSpace ? "the host's file system has no space left" : "the host fails its requests with I/O errors";
        _note?.Invoke($"{_spec.Name}: {disk} ({path}): {problem}; the guest gets I/O errors");
        DiskFaulted?.Invoke(this, new DiskFaultEventArgs(disk, status));
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
}
