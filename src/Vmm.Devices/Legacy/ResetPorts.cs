using Vmm.Devices.Bus;

namespace Vmm.Devices.Legacy;

/// <summary>
/// The reset control register of PC chipsets (RST_CNT, Intel ICH9 datasheet 13.7.5): the byte at port 0xCF9, between the PCI configuration
/// ports. Bit 1 chooses between two kinds of reset, which are the same here; bit 2 resets. Any other access goes to the configuration
/// ports.
/// </summary>
/// <param name="configPorts">Ports 0xCF8 to 0xCFF.</param>
/// <param name="reset">Called on the vCPU thread that asks for it.</param>
public sealed class ResetControl(IBusDevice configPorts, Action reset) : IBusDevice
{
    /// <summary>The register's port.</summary>
    public const ushort Port = 0xCF9;

    /// <summary>A write of this resets the whole machine: bit 1 system reset, bit 2 now.</summary>
    public const byte ResetValue = 0x06;

    private const ulong Offset = 1;
    private const byte KindBits = 0x0A, ResetBit = 0x04;

    private volatile byte _kind;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        if (offset == Offset && data.Length == 1)
        {
            data[0] = _kind;
            return;
        }

        configPorts.Read(offset, data);
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != Offset || data.Length != 1)
        {
            configPorts.Write(offset, data);
            return;
        }

        _kind = (byte)(data[0] & KindBits);
        if ((data[0] & ResetBit) != 0)
        {
            reset();
        }
    }

    /// <summary>The state for saving.</summary>
    public ResetControlStateV1 Capture() => new() { ResetKind = _kind };

    /// <summary>Takes a saved state.</summary>
    public void Restore(ResetControlStateV1 state) => _kind = (byte)(state.ResetKind & KindBits);
}

/// <summary>
/// System control port A at 0x92 (PS/2): bit 0 resets the processors when it changes from 0 to 1, bit 1 opens address line 20, which is
/// always open here.
/// </summary>
/// <param name="reset">Called on the vCPU thread that asks for it.</param>
public sealed class SystemControlPortA(Action reset) : IBusDevice
{
    /// <summary>The port.</summary>
    public const ulong Port = 0x92;

    private const byte FastReset = 0x01, AddressLine20 = 0x02;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        data[0] = AddressLine20;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if ((data[0] & FastReset) != 0)
        {
            reset();
        }
    }
}
