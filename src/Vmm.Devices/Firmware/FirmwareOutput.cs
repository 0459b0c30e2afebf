using System.Diagnostics;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Firmware;

/// <summary>
/// The debug port of firmware (edk2's OvmfPkg README, "DEBUG output"; QEMU's isa-debugcon): bytes that are written are text for whoever
/// runs the machine, and a read says that somebody takes them. The guest's kernel can write there as well: lines are bounded in length and
/// in number, what is more is left out and counted, and only characters that do no harm in a log are taken as they are.
/// </summary>
/// <param name="take">Takes a line, on the vCPU's thread under the lock of the device; must not wait.</param>
/// <param name="now">Milliseconds; a clock of its own when null.</param>
public sealed class FirmwareOutput(Action<string> take, Func<long>? now = null) : IBusDevice
{
    /// <summary>The port.</summary>
    public const ulong Port = 0x402;

    /// <summary>What a read gives.</summary>
    public const byte Present = 0xE9;

    /// <summary>Longest line, characters; lines at once; milliseconds until there is room for one more.</summary>
    public const int LongestLine = 200, Burst = 64, MillisecondsPerLine = 2000;

    private readonly Lock _gate = new();
    private readonly Func<long> _now = now ?? Milliseconds();
    private readonly char[] _line = new char[LongestLine];
    private int _length;
    private bool _cut;
    private double _room = Burst;
    private long _filledAt, _leftOut;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        data[0] = Present;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            Take(data[0]);
        }
    }

    private void Take(byte value)
    {
        if (value == '\n')
        {
            EndLine();
        }
        else if (_length < LongestLine)
        {
            _line[_length++] = value is >= 0x20 and < 0x7F ? (char)value : value is (byte)'\r' or (byte)'\t' ? ' ' : '?';
        }
        else
        {
            _cut = true;
        }
    }

    private void EndLine()
    {
        long time = _now();
        _room = Math.Min(Burst, _room + ((time - _filledAt) / (double)MillisecondsPerLine));
        _filledAt = time;
        string text = new string(_line, 0, _length).TrimEnd();
        bool isCut = _cut;
        (_length, _cut) = (0, false);
        if (text.Length == 0)
        {
            return;
        }

        if (_room < 1)
        {
            _leftOut++;
            return;
        }

        _room--;
        if (_leftOut > 0)
        {
            text = $"({_leftOut} lines left out) {text}";
            _leftOut = 0;
        }

        take(isCut ? text + "..." : text);
    }

    private static Func<long> Milliseconds()
    {
        Stopwatch clock = Stopwatch.StartNew();
        return () => clock.ElapsedMilliseconds;
    }
}
