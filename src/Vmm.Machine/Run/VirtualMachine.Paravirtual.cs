using Vmm.Devices.Legacy;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Machine.Boot;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>The devices that a spec asks for beyond disks and entropy: balloon, console, panic, generation id.</summary>
public sealed partial class VirtualMachine
{
    // The memory map reserves it with the ACPI tables.
    private const ulong GenerationIdAddress = BootLayout.FirmwarePage;

    private VirtioConsole? _virtioConsole;
    private int _panicked;

    /// <summary>The memory balloon, for changing its target and reading statistics while the VM runs; null when the spec has none.</summary>
    public VirtioBalloon? Balloon { get; private set; }

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

    private void Panicked(GuestPanicEvents events, Action<string>? note)
    {
        // A guest may say so as often as it likes; one note is enough.
        if ((events & GuestPanicEvents.Panicked) != 0 && Interlocked.Exchange(ref _panicked, 1) == 0)
        {
            note?.Invoke("the guest's kernel panicked");
        }
    }

    /// <summary>A guest that panicked and went away did not end well, whatever way it took.</summary>
    private RunResult WithPanic(RunResult result) =>
        GuestPanicked && result.Outcome is RunOutcome.Reset or RunOutcome.PowerOff ? result with { Outcome = RunOutcome.Panicked } : result;

    private void FeedVirtioConsole(VirtioConsole console)
    {
        Span<byte> input = stackalloc byte[256];
        while (!_end.Decided)
        {
            int count = _console.Read(input);
            bool toSerial = _serial is not null && ConsoleOnSerial && !console.Ready;
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
