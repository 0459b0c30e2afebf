using Vmm.Devices.Bus;

namespace Vmm.Devices.Legacy;

/// <summary>Where a serial port sends what the guest wrote.</summary>
public interface ISerialSink
{
    /// <summary>Bytes from the guest; called on a vCPU thread outside the port's lock.</summary>
    void Write(ReadOnlySpan<byte> bytes);
}

/// <summary>
/// A <see cref="Uart16550"/> at eight ports, with its lock, its interrupt line and its sink. Input waits in the caller while the FIFO is
/// full, so nothing typed or piped into the guest is lost.
/// </summary>
public sealed class SerialPort(IInterruptLine line, ISerialSink sink) : IBusDevice, IDisposable
{
    private readonly Uart16550 _uart = new();
    private readonly Lock _gate = new();
    private AutoResetEvent? _room; // made by the first Send that finds the FIFO full
    private bool _level;
    private volatile bool _closed, _inputHeld;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        lock (_gate)
        {
            data[0] = _uart.Read((int)offset);
            UpdateLine();
        }

        if (offset == 0)
        {
            Volatile.Read(ref _room)?.Set();
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        bool output;
        byte sent;
        lock (_gate)
        {
            output = _uart.Write((int)offset, data[0], out sent);
            UpdateLine();
        }

        if (output)
        {
            sink.Write([sent]);
        }
        else if (offset is 1 or 2 or 4) // FIFO cleared, or loopback left: there may be room again
        {
            Volatile.Read(ref _room)?.Set();
        }
    }

    /// <summary>Gives bytes to the guest, as fast as it takes them. Returns how many it took before the port was closed or held.</summary>
    public int Send(ReadOnlySpan<byte> bytes)
    {
        int done = 0;
        while (done < bytes.Length && !_closed && !_inputHeld)
        {
            AutoResetEvent? room = null;
            lock (_gate)
            {
                while (done < bytes.Length && !_inputHeld && _uart.ReceiveRoom > 0)
                {
                    _uart.Receive(bytes[done++]);
                }

                UpdateLine();
                if (done < bytes.Length && !_closed && !_inputHeld)
                {
                    room = _room ??= new AutoResetEvent(initialState: false);
                }
            }

            room?.WaitOne();
        }

        return done;
    }

    /// <summary>The state for saving.</summary>
    public UartStateV1 Capture()
    {
        lock (_gate)
        {
            return _uart.Capture();
        }
    }

    /// <summary>Takes a saved state.</summary>
    public void Restore(UartStateV1 state)
    {
        lock (_gate)
        {
            _uart.Restore(state);
            UpdateLine();
        }

        Volatile.Read(ref _room)?.Set();
    }

    /// <summary>Ends a <see cref="Send"/> that waits, and takes no input until <see cref="ResumeInput"/>. Any thread.</summary>
    public void HoldInput()
    {
        lock (_gate)
        {
            _inputHeld = true;
        }

        Volatile.Read(ref _room)?.Set();
    }

    /// <summary>Takes input again. Any thread.</summary>
    public void ResumeInput() => _inputHeld = false;

    /// <summary>Ends a <see cref="Send"/> that waits.</summary>
    public void Close()
    {
        lock (_gate) // a Send either sees the flag before it waits, or has made the event by now
        {
            _closed = true;
        }

        _room?.Set();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Close();
        _room?.Dispose();
    }

    private void UpdateLine()
    {
        bool level = _uart.InterruptPending;
        if (level != _level)
        {
            _level = level;
            line.Set(level);
        }
    }
}
