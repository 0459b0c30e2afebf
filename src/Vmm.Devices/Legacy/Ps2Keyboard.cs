using Vmm.State;

namespace Vmm.Devices.Legacy;

/// <summary>A PS/2 keyboard that answers what drivers ask of one, and has one key. Its owner holds the lock.</summary>
internal sealed class Ps2Keyboard
{
    private const byte Acknowledge = 0xFA, Resend = 0xFE;
    private const int Room = 16; // bytes a keyboard keeps; what comes beyond is lost

    // Scan code set 2: Wake, pressed and released.
    private static ReadOnlySpan<byte> WakeKey => [0xE0, 0x5E, 0xE0, 0xF0, 0x5E];

    private readonly Queue<byte> _bytes = new(Room);
    private bool _scans = true;
    private byte _expects; // the command whose parameter comes next

    /// <summary>There is something to take.</summary>
    internal bool HasByte => _bytes.Count > 0;

    /// <summary>What it keeps, oldest first.</summary>
    internal byte[] Bytes => [.. _bytes];

    /// <summary>It tells of keys.</summary>
    internal bool Scans => _scans;

    /// <summary>The command whose parameter comes next; 0: none.</summary>
    internal byte Expects => _expects;

    internal void Restore(byte[] bytes, bool scans, byte expects)
    {
        if (bytes.Length > Room)
        {
            throw new StateException($"{KeyboardControllerStateV1.Kind}: {bytes.Length} bytes of the keyboard, which keeps {Room}");
        }

        _bytes.Clear();
        Tell(bytes);
        _scans = scans;
        _expects = expects;
    }

    internal byte TakeByte() => _bytes.Dequeue();

    internal void PressWakeKey()
    {
        if (!_scans || _bytes.Count + WakeKey.Length > Room)
        {
            return;
        }

        foreach (byte code in WakeKey)
        {
            _bytes.Enqueue(code);
        }
    }

    /// <summary>A command, or the parameter of the one before.</summary>
    internal void Write(byte value)
    {
        (byte command, _expects) = (_expects, 0);
        if (command != 0)
        {
            Tell(Acknowledge);
            if (command == 0xF0 && value == 0)
            {
                Tell(2); // the scan code set
            }

            return;
        }

        switch (value)
        {
            case 0xED or 0xF0 or 0xF3: // lights, scan code set, repeat rate
                _expects = value;
                Tell(Acknowledge);
                break;
            case 0xEE: // echo
                Tell(0xEE);
                break;
            case 0xF2: // who it is
                Tell(Acknowledge, 0xAB, 0x83);
                break;
            case 0xF4:
                _scans = true;
                Tell(Acknowledge);
                break;
            case 0xF5:
                _scans = false;
                Tell(Acknowledge);
                break;
            case 0xFF: // reset and self-test
                _bytes.Clear();
                _scans = true;
                Tell(Acknowledge, 0xAA);
                break;
            default:
                Tell(value >= 0xF6 ? Acknowledge : Resend);
                break;
        }
    }

    private void Tell(params ReadOnlySpan<byte> bytes)
    {
        foreach (byte value in bytes)
        {
            if (_bytes.Count < Room)
            {
                _bytes.Enqueue(value);
            }
        }
    }
}
