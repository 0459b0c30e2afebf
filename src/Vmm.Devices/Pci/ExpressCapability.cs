namespace Vmm.Devices.Pci;

/// <summary>
/// The PCI Express capability, version 2 (PCI Express base spec 7.5.3): what a function says of itself and of its link. Links here have one
/// lane of 2.5 GT/s: nobody moves data over them, and software wants to see one. Registers that are not named read as zeros.
/// </summary>
internal sealed class ExpressCapability
{
    /// <summary>Bit of the link status: the data link layer is active (7.5.3.8).</summary>
    internal const uint LinkActive = 0x2000;

    /// <summary>Bit of the link capabilities: <see cref="LinkActive"/> is told (7.5.3.6).</summary>
    internal const uint ReportsLinkActive = 1 << 20;

    private const byte Id = 0x10;
    private const int Length = 60;
    private const uint Version = 2, Endpoint = 0, RootPort = 4, RootComplexEndpoint = 9, HasSlot = 0x100, RoleBasedErrors = 0x8000;
    private const uint ErrorReporting = 0xF; // 7.5.3.4, bits 0 to 3: nothing here has errors to report
    private const uint OneLane = 0x11, AspmCompliance = 1 << 22, LinkDisable = 0x10, CommonClock = 0x40, ExtendedSynch = 0x80;
    private const int PortNumberShift = 24;
    private readonly PciField _flags, _deviceCapabilities, _linkCapabilities, _linkStatus, _linkCapabilities2;

    private ExpressCapability(PciConfigSpace config, bool isPort)
    {
        Registers = config.AddCapability(Id, Length);
        _flags = Registers.Add(2, 2, Flags(RootComplexEndpoint));
        _deviceCapabilities = Registers.Add(4, 4, 0);
        _linkCapabilities = Registers.Add(12, 4, 0);
        _linkStatus = Registers.Add(18, 2, 0);
        _linkCapabilities2 = Registers.Add(44, 4, 0);
        if (isPort)
        {
            Registers.Add(8, 2, 0, ErrorReporting);
            LinkControl = Registers.Add(16, 2, 0, LinkDisable | CommonClock | ExtendedSynch);
        }
    }

    /// <summary>Where it is, for fields of its own that a port has.</summary>
    internal PciCapability Registers { get; }

    /// <summary>Software disabled the link (7.5.3.7).</summary>
    internal bool IsLinkDisabled => (LinkControl?.Value & LinkDisable) is > 0;

    /// <summary>The link control register of a port.</summary>
    internal PciField? LinkControl { get; }

    /// <summary>That of a device: what it says is for <see cref="Show"/>.</summary>
    internal static ExpressCapability OfDevice(PciConfigSpace config) => new(config, isPort: false);

    /// <summary>That of a root port with a slot.</summary>
    /// <param name="config">Where it goes.</param>
    /// <param name="number">The port's number.</param>
    internal static ExpressCapability OfRootPort(PciConfigSpace config, byte number)
    {
        ExpressCapability capability = new(config, isPort: true);
        capability._flags.SetFixed(Flags(RootPort) | HasSlot);
        capability._deviceCapabilities.SetFixed(RoleBasedErrors);
        capability._linkCapabilities.SetFixed(OneLane | AspmCompliance | ReportsLinkActive | ((uint)number << PortNumberShift));
        capability._linkCapabilities2.SetFixed(OneSpeed);
        return capability;
    }

    /// <summary>What a device is on a bus: an endpoint with a link, or one of the root complex, which has none (7.5.3.2).</summary>
    internal void Show(PciBusKind bus)
    {
        bool hasLink = bus == PciBusKind.Express;
        _flags.SetFixed(Flags(hasLink ? Endpoint : RootComplexEndpoint));
        _deviceCapabilities.SetFixed(hasLink ? RoleBasedErrors : 0);
        _linkCapabilities.SetFixed(hasLink ? OneLane | AspmCompliance : 0);
        _linkCapabilities2.SetFixed(hasLink ? OneSpeed : 0);
        _linkStatus.SetFixed(hasLink ? OneLane : 0);
    }

    /// <summary>A port's link came up or went down.</summary>
    internal void ShowLink(bool active) => _linkStatus.Value = active ? OneLane | LinkActive : 0;

    /// <summary>The vector of supported link speeds (7.5.3.18): 2.5 GT/s.</summary>
    private const uint OneSpeed = 2;

    private static uint Flags(uint type) => (type << 4) | Version;
}
