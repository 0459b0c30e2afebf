using Vmm.Devices.Legacy;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Machine.Boot;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <summary>The devices that a spec asks for beyond disks and entropy: balloon, console, panic, generation id.</summary>
public sealed partial class VirtualMachine
{
    // The memory map reserves it with the ACPI tables.
    private const ulong GenerationIdAddress = BootLayout.FirmwarePage;

    private readonly List<Thread> _panicThreads = [];
    private VirtioConsole? _virtioConsole;
    private int _panicked, _crashKernel;

    /// <summary>The memory balloon, for changing its target and reading statistics while the VM runs; null when the spec has none.</summary>
    public VirtioBalloon? Balloon { get; private set; }

    /// <summary>The guest told of a panic, at most once of each kind; on a thread of its own.</summary>
    public event EventHandler<GuestPanicEventArgs>? GuestPanic;

    /// <summary>After a panic: the machine is <see cref="MachineState.Crashed"/> from now on.</summary>
    public event EventHandler? Preserved;

    /// <summary>The guest told of a panic of its kernel.</summary>
    public bool GuestPanicked => Volatile.Read(ref _panicked) != 0;

    private bool ConsoleOnSerial => _spec.Serial && _spec.Console != ConsoleKind.Virtio;

    private static int AcpiRoom => (int)(BootLayout.FirmwarePage - BootLayout.AcpiTables);

    private void BuildPanicDevice(Action<string>? note)
    {
        if (_spec.PvPanic)
        {
            _ports.Map(PvPanic.Port, 1, new PvPanic(events => Panicked(events, note)), "pvpanic");
        }
    }

    /// <summary>Asked first, so that the usual start does not even load the types.</summary>
    private bool WantsParavirtualDevices => _spec.Balloon is not null || _spec.Vsock is not null || _spec.Console != ConsoleKind.Serial;

    private void BuildParavirtualDevices(VirtioSlots slots)
    {
        if (_spec.Balloon is { } balloon)
        {
            Balloon = new VirtioBalloon(new VirtioBalloonOptions
            {
                TargetBytes = balloon.Target,
                DeflateOnOom = balloon.DeflateOnOom,
                FreePageReporting = balloon.FreePageReporting,
                StatisticsInterval = TimeSpan.FromSeconds(balloon.StatsInterval),
            });
            slots.Attach("balloon", Balloon, _spec.VirtioTransport);
        }

        if (_spec.Console != ConsoleKind.Serial)
        {
            _virtioConsole = new VirtioConsole(new ConsoleSink(_console));
            slots.Attach("console", _virtioConsole, _spec.VirtioTransport);
            _console.OnResize(_virtioConsole.Resize);
        }

        if (_spec.Vsock is { } vsock)
        {
            slots.Attach("vsock", new VirtioVsock((ulong)vsock.Cid, vsock.Path, dial: _resources.DialHost), _spec.VirtioTransport);
        }
    }

    /// <summary>Writes the generation id, in the byte order of Microsoft's GUIDs, and says where it is.</summary>
    private static GuestAddress WriteGenerationId(GuestMemory memory, string text)
    {
        Guid id = text is "auto" ? Guid.NewGuid() : Guid.ParseExact(text, "D");
        GuestAddress at = new(GenerationIdAddress);
        return memory.TryWrite(at, id.ToByteArray()) ? at : throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
    }

    /// <summary>
    /// On the vCPU thread that told it. A guest may say so as often as it likes; each is heard once. What follows is for a thread beside it: a vCPU's may
    /// be confined, and waiting for all vCPUs is nothing for one of them.
    /// </summary>
    private void Panicked(GuestPanicEvents events, Action<string>? note)
    {
        bool panicked = (events & GuestPanicEvents.Panicked) != 0;
        if (Interlocked.Exchange(ref panicked ? ref _panicked : ref _crashKernel, 1) != 0)
        {
            return;
        }

        if (panicked)
        {
            _gate.Lock(); // this vCPU executes nothing any more
        }

        Thread follow = new(() => FollowPanic(panicked, note), maxStackSize: 256 * 1024) { Name = "guest-panic", IsBackground = true };
        lock (_panicThreads)
        {
            try
            {
                (_resources.Threads ?? (IIoThreads)PlainIoThreads.Instance).Start(follow);
                _panicThreads.Add(follow);
            }
#pragma warning disable CA1031 // No thread can be had: the VM ends with what is known, instead of a vCPU that dies of it.
            catch (Exception)
#pragma warning restore CA1031
            {
                _end.Decide(new RunResult(RunOutcome.Panicked));
            }
        }
    }

    private void FollowPanic(bool panicked, Action<string>? note)
    {
        bool preserve = panicked && _spec.OnCrash == CrashPolicy.Preserve;
        note?.Invoke((panicked, preserve) switch
        {
            (false, _) => "the guest's kernel panicked; its crash kernel takes over",
            (true, true) => "the guest's kernel panicked; it stays as it is until it is stopped (onCrash: preserve)",
            (true, false) => "the guest's kernel panicked",
        });
        GuestPanic?.Invoke(this, new GuestPanicEventArgs(panicked));
        if (preserve)
        {
            Preserve();
        }
        else if (panicked)
        {
            _end.Decide(new RunResult(RunOutcome.Panicked));
        }
    }

    private void Preserve()
    {
        lock (_stateLock)
        {
            if (!MachineLifecycle.CanMove(_state, MachineState.Crashed))
            {
                return; // it ended meanwhile
            }

            foreach (VcpuThread vcpu in _vcpus)
            {
                vcpu.Kick();
            }

            if (!_gate.WaitParked(_vcpus.Count))
            {
                return;
            }

            _state = MachineState.Crashed;
        }

        Preserved?.Invoke(this, EventArgs.Empty);
    }

    /// <summary>No vCPU runs any more.</summary>
    private void EndPanics()
    {
        Thread[] threads;
        lock (_panicThreads)
        {
            threads = [.. _panicThreads];
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }
    }

    /// <summary>A guest that panicked and went away at the same moment did not end well, whatever way it took.</summary>
    private RunResult WithPanic(RunResult result) =>
        GuestPanicked && result.Outcome is RunOutcome.Reset or RunOutcome.PowerOff ? result with { Outcome = RunOutcome.Panicked } : result;

    private void FeedVirtioConsole(VirtioConsole console)
    {
        Span<byte> input = stackalloc byte[256];
        while (!_end.Decided)
        {
            int count = _console.Read(input);
            bool toSerial = _serial is not null && ConsoleOnSerial && !console.IsServing;
            if (count == 0 || (toSerial ? _serial!.Send(input[..count]) : console.Send(input[..count])) < count)
            {
                return;
            }
        }
    }

    private sealed class NoSink : ISerialSink
    {
        public void Write(ReadOnlySpan<byte> bytes) { }
    }
}
