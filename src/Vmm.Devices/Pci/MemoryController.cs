namespace Vmm.Devices.Pci;

/// <summary>
/// The host bridge of Intel's Q35 (3 Series Express Chipset datasheet, 5.1) at 00:00.0, as far as firmware for it looks: PCIEXBAR says
/// where the configuration space is in memory, and whether it is at all.
/// </summary>
internal sealed class MemoryController : ChipsetFunction
{
    private const uint Enabled = 1, LengthBits = 6, AddressLow = 0xF000_0000, AddressHigh = 0xF;

    private readonly PciField _low, _high;

    internal MemoryController() : base("host bridge", 0x8086, 0x29C0, 0x060000)
    {
        _low = Config.Add(new PciField(0x60, 4, 0) { Writable = AddressLow | LengthBits | Enabled, Written = _ => Changed() });
        _high = Config.Add(new PciField(0x64, 4, 0) { Writable = AddressHigh, Written = _ => Changed() });
    }

    /// <summary>Where the configuration space is, 256 MiB for 256 buses; null: nowhere, or in a length that nobody asks for.</summary>
    internal ulong? Ecam => (_low.Value & (Enabled | LengthBits)) == Enabled
        ? ((ulong)_high.Value << 32) | (_low.Value & AddressLow)
        : null;

    /// <summary>Called after <see cref="Ecam"/> changed, under the lock of the configuration.</summary>
    internal Action<ulong?>? Moved { get; set; }

    /// <inheritdoc/>
    protected override void Restored() => Changed();

    private void Changed() => Moved?.Invoke(Ecam);
}
