using Vmm.Devices.Legacy;
using Vmm.Devices.Virtio.Console;
using Vmm.State;

namespace Vmm.Machine.Run;

/// <summary>
/// Takes what the user types to the guest's console, on a thread of its own. While it is held nothing is taken from the user, and what was
/// taken and is not with the guest is kept here.
/// </summary>
/// <param name="far">Far side of the consoles.</param>
/// <param name="end">How the machine ends.</param>
/// <param name="serial">The serial port; null when there is none.</param>
/// <param name="isOnSerial">The far side is connected to the serial port.</param>
/// <param name="console">The virtio console; null when there is none.</param>
internal sealed class ConsoleFeed(IConsoleEndpoint far, MachineEnd end, SerialPort? serial, bool isOnSerial, VirtioConsole? console)
{
    private const int MostPending = 256;

    private readonly object _gate = new();
    private Thread? _thread;
    private byte[] _pending = []; // of the thread, unless it is held and parked
    private bool _held, _started, _parked, _over; // under the gate

    internal void Start()
    {
        if (console is null && serial is null)
        {
            return;
        }

        lock (_gate)
        {
            _started = true;
        }

        string name = console is null ? "serial-input" : "console-input";
        Thread thread = new(Feed, maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
        thread.Start();
        _thread = thread; // once it runs: it is joined
    }

    /// <summary>The guest is over.</summary>
    internal void End()
    {
        lock (_gate)
        {
            _over = true;
            Monitor.PulseAll(_gate);
        }

        serial?.Close();
        console?.Close();
        far.StopReading();
        _thread?.Join();
    }

    /// <summary>From the return on nothing is taken from the user, nor given to the guest, until <see cref="Resume"/>.</summary>
    /// <param name="cancel">Gives up; <see cref="Resume"/> follows.</param>
    internal void Hold(CancellationToken cancel)
    {
        lock (_gate)
        {
            _held = true;
        }

        serial?.HoldInput();
        console?.HoldInput();
        far.InterruptRead();
        lock (_gate)
        {
            while (_started && !_parked && !_over)
            {
                cancel.ThrowIfCancellationRequested();
                Monitor.Wait(_gate, millisecondsTimeout: 20);
            }
        }
    }

    /// <summary>Goes on with what is kept.</summary>
    internal void Resume()
    {
        serial?.ResumeInput();
        console?.ResumeInput();
        lock (_gate)
        {
            _held = false;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>What was taken from the user and the guest has not; it is held, or was not started.</summary>
    internal byte[] Pending
    {
        get => _pending;
        set => _pending = value.Length <= MostPending
            ? value
            : throw new StateException($"{value.Length} bytes of input are more than the {MostPending} that can be kept");
    }

    private void Feed()
    {
        Span<byte> input = stackalloc byte[MostPending];
        while (!end.Decided && !ParkWhileHeld())
        {
            if (_pending.Length == 0)
            {
                int count = far.Read(input);
                if (count == 0)
                {
                    break;
                }

                if (count > 0)
                {
                    _pending = input[..count].ToArray();
                }

                continue; // it may be held by now
            }

            _pending = _pending[Send(_pending)..];
        }

        lock (_gate)
        {
            _parked = true; // for good
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits while it is held; true when the guest is over.</summary>
    private bool ParkWhileHeld()
    {
        lock (_gate)
        {
            while (_held && !_over)
            {
                _parked = true;
                Monitor.PulseAll(_gate);
                Monitor.Wait(_gate);
            }

            _parked = false;
            return _over;
        }
    }

    // Until the virtio console has a driver, the serial port is the console, when it is connected. Less than all: it is held, or over.
    private int Send(ReadOnlySpan<byte> input) =>
        console is null || (serial is not null && isOnSerial && !console.IsServing) ? serial!.Send(input) : console.Send(input);
}
