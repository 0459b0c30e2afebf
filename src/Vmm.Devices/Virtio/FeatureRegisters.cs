namespace Vmm.Devices.Virtio;

/// <summary>
/// Feature bits as registers show and take them, 32 at a time (virtio 1.2 sections 2.2, 4.1.4.3). Under the lock of the transport.
/// </summary>
/// <param name="offered">Bits that the driver may choose from.</param>
internal sealed class FeatureRegisters(ulong offered)
{
    /// <summary>Bits that the driver may choose from.</summary>
    internal ulong Offered => offered;

    /// <summary>Bits that the driver chose so far.</summary>
    internal ulong Accepted { get; set; }

    /// <summary>Which 32 feature bits DeviceFeatures shows.</summary>
    internal uint DeviceSelect { get; set; }

    /// <summary>Which 32 feature bits DriverFeatures takes.</summary>
    internal uint DriverSelect { get; set; }

    /// <summary>The driver chose bits that were not offered.</summary>
    internal ulong Strange => Accepted & ~offered;

    /// <summary>The selected window of the offered features.</summary>
    internal uint ReadDevice() => Window(offered, DeviceSelect);

    /// <summary>The selected window of the accepted features.</summary>
    internal uint ReadDriver() => Window(Accepted, DriverSelect);

    /// <summary>Takes 32 accepted features.</summary>
    internal void WriteDriver(uint value) => Accepted = DriverSelect switch
    {
        0 => (Accepted & 0xFFFF_FFFF_0000_0000) | value,
        1 => (Accepted & 0xFFFF_FFFF) | ((ulong)value << 32),
        _ => Accepted,
    };

    /// <summary>As at first.</summary>
    internal void Reset()
    {
        Accepted = 0;
        DeviceSelect = 0;
        DriverSelect = 0;
    }

    private static uint Window(ulong bits, uint select) => select switch
    {
        0 => (uint)bits,
        1 => (uint)(bits >> 32),
        _ => 0,
    };
}
