using Vmm.Devices.Legacy;
using Vmm.Devices.Virtio.Console;

namespace Vmm.Machine.Run;

/// <summary>Takes what the user types to the guest's console, on a thread of its own.</summary>
/// <param name="far">Far side of the consoles.</param>
/// <param name="end">How the machine ends.</param>
/// <param name="serial">The serial port; null when there is none.</param>
/// <param name="isOnSerial">The far side is connected to the serial port.</param>
/// <param name="console">The virtio console; null when there is none.</param>
internal sealed class ConsoleFeed(IConsoleEndpoint far, MachineEnd end, SerialPort? serial, bool isOnSerial, VirtioConsole? console)
{
    private Thread? _thread;

    internal void Start()
    {
        if (console is null && serial is null)
        {
            return;
        }

        string name = console is null ? "serial-input" : "console-input";
        Thread thread = new(Feed, maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
        thread.Start();
        _thread = thread; // once it runs: it is joined
    }

    /// <summary>The guest is over.</summary>
    internal void End()
    {
        serial?.Close();
        console?.Close();
        far.StopReading();
        _thread?.Join();
    }

    private void Feed()
    {
        Span<byte> input = stackalloc byte[256];
        while (!end.Decided)
        {
            int count = far.Read(input);
            if (count == 0 || Send(input[..count]) < count)
            {
                return;
            }
        }
    }

    // Until the virtio console has a driver, the serial port is the console, when it is connected.
    private int Send(ReadOnlySpan<byte> input) =>
        console is null || (serial is not null && isOnSerial && !console.IsServing) ? serial!.Send(input) : console.Send(input);
}
