using Vmm.Devices.Bus;
using Vmm.State;

namespace Vmm.Devices.Legacy;

/// <summary>
/// MC146818-compatible clock and CMOS RAM at ports 0x70/0x71, read-only time in UTC from the host. No alarm and no periodic interrupt.
/// </summary>
/// <param name="clock">The time to show; null is the host's.</param>
public sealed class CmosRtc(TimeProvider? clock = null) : IBusDevice
{
    private const byte IndexBits = 0x7F;
    private const byte WritableOfB = 0x86; // SET, binary, 24-hour; no interrupts to enable

    private readonly Lock _gate = new();
    private readonly byte[] _ram = new byte[128];
    private byte _index;
    private byte _registerB = 0x02; // 24-hour, BCD

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        lock (_gate)
        {
            data[0] = offset == 1 ? ReadRegister() : (byte)0xFF;
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            if (offset == 0)
            {
                _index = (byte)(data[0] & IndexBits);
            }
            else if (_index == 0x0B)
            {
                _registerB = (byte)(data[0] & WritableOfB);
            }
            else if (_index > 0x0D && _index != 0x32)
            {
                _ram[_index] = data[0];
            }
        }
    }

    /// <summary>Says how much memory there is where firmware without a better map looks: 0x34 and 0x5B, in units of 64 KiB.</summary>
    /// <param name="low">Bytes of memory below 4 GiB.</param>
    /// <param name="high">Bytes of memory from there on.</param>
    public void TellMemory(ulong low, ulong high)
    {
        const ulong Unit = 64 << 10, Known = 16 << 20; // what is below 16 MiB is not counted
        ulong below = Math.Min((Math.Max(low, Known) - Known) / Unit, ushort.MaxValue), above = Math.Min(high / Unit, 0xFF_FFFF);
        lock (_gate)
        {
            (_ram[0x34], _ram[0x35]) = ((byte)below, (byte)(below >> 8));
            (_ram[0x5B], _ram[0x5C], _ram[0x5D]) = ((byte)above, (byte)(above >> 8), (byte)(above >> 16));
        }
    }

    /// <summary>The state for saving.</summary>
    public RtcStateV1 Capture()
    {
        lock (_gate)
        {
            return new RtcStateV1 { Index = _index, RegisterB = _registerB, Ram = [.. _ram] };
        }
    }

    /// <summary>Takes a saved state.</summary>
    /// <exception cref="StateException">The RAM has another size.</exception>
    public void Restore(RtcStateV1 state)
    {
        if (state.Ram.Length != _ram.Length)
        {
            throw new StateException($"{RtcStateV1.Kind}: {state.Ram.Length} bytes of RAM, not {_ram.Length}");
        }

        lock (_gate)
        {
            _index = (byte)(state.Index & IndexBits);
            _registerB = (byte)(state.RegisterB & WritableOfB);
            state.Ram.CopyTo(_ram, 0);
        }
    }

    private byte ReadRegister()
    {
        DateTime now = (clock ?? TimeProvider.System).GetUtcNow().UtcDateTime;
        return _index switch
        {
            0x00 => Encode(now.Second),
            0x02 => Encode(now.Minute),
            0x04 => (_registerB & 2) != 0 ? Encode(now.Hour) : (byte)(Encode(((now.Hour + 11) % 12) + 1) | (now.Hour >= 12 ? 0x80 : 0)),
            0x06 => Encode((int)now.DayOfWeek + 1),
            0x07 => Encode(now.Day),
            0x08 => Encode(now.Month),
            0x09 => Encode(now.Year % 100),
            0x32 => Encode(now.Year / 100),
            0x0A => 0x26, // 32768 Hz, never in update: each read takes one instant
            0x0B => _registerB,
            0x0C => 0,
            0x0D => 0x80, // the battery is good
            _ => _ram[_index],
        };
    }

    private byte Encode(int value) => (_registerB & 4) != 0 ? (byte)value : (byte)(((value / 10) << 4) | (value % 10));
}
