namespace Vmm.Devices.Pci;

/// <summary>
/// A PCI-to-PCI bridge as software sees it: the type 1 header (PCI-to-PCI Bridge Architecture 1.2; PCI Express base spec 7.5.1.3) with one
/// memory window, no I/O window and no prefetchable one (their registers read as zero, 3.2.5.6 and 3.2.5.9). It comes configured, as
/// firmware leaves it: bus numbers, window, memory and bus master enabled.
/// </summary>
internal abstract class PciBridge : PciFunction
{
    private const uint Megabyte = 1 << 20, WindowMask = 0xFFF0, ControlReset = 0x40;
    private readonly PciField _secondaryBus, _subordinateBus, _memoryBase, _memoryLimit, _control;
    private bool _inReset;

    /// <param name="name">Name for messages.</param>
    /// <param name="device">Device ID.</param>
    /// <param name="kind">What the bus behind it is.</param>
    /// <param name="behind">Number and memory of the bus behind it.</param>
    /// <param name="slot">Its slot on bus 0.</param>
    /// <param name="slots">Slots of the bus behind it.</param>
    private protected PciBridge(string name, ushort device, PciBusKind kind, BehindBridge behind, int slot, int slots)
        : base(name, 0x1B36, device, 0x060400, 0, headerType: 1)
    {
        Command.Value = CommandMemory | CommandBusMaster;
        Command.Written += Changed;
        Add(0x18, 1, 0, 0xFF); // primary bus
        _secondaryBus = Add(0x19, 1, (uint)behind.Bus, 0xFF);
        _subordinateBus = Add(0x1A, 1, (uint)behind.Bus, 0xFF);
        Add(0x1B, 1, 0, 0xFF); // latency timer, which nothing here waits for
        _memoryBase = Add(0x20, 2, (behind.Start >> 16) & WindowMask, WindowMask);
        _memoryLimit = Add(0x22, 2, ((behind.Start + behind.Length - 1) >> 16) & WindowMask, WindowMask);
        _control = Add(0x3E, 2, 0, 0x0043); // parity and SERR do nothing; secondary bus reset
        Bus = new PciBus(kind, this, new BarAllocator(behind.Start, behind.Length), slot, slots);
    }

    /// <summary>The bus behind it.</summary>
    internal PciBus Bus { get; }

    /// <summary>
    /// The number of that bus now; 0 is none, also while the numbers behind it are no range (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.4).
    /// </summary>
    internal int SecondaryBus => _secondaryBus.Value <= _subordinateBus.Value ? (int)_secondaryBus.Value : 0;

    /// <summary>Whether anything reaches the bus behind it, and comes from there.</summary>
    internal virtual bool IsLinked => true;

    /// <summary>Its window is open and holds the range (3.2.5.8).</summary>
    internal bool Forwards(ulong address, ulong length)
    {
        ulong start = (ulong)_memoryBase.Value << 16, end = ((ulong)_memoryLimit.Value << 16) + (Megabyte - 1);
        return IsLinked && DecodesMemory && address >= start && address <= end && length - 1 <= end - address;
    }

    /// <summary>What is behind it is reached in another way from now on.</summary>
    /// <param name="reset">It is reset, too.</param>
    private protected void UpdateBehind(bool reset)
    {
        foreach (PciFunction function in Bus.Functions)
        {
            if (reset)
            {
                function.Reset();
            }

            function.UpdateAccess();
        }
    }

    private PciField Add(int offset, int width, uint value, uint writable) =>
        Config.Add(new PciField(offset, width, value) { Writable = writable, Written = Changed });

    /// <inheritdoc/>
    protected override void Restored() => _inReset = (_control.Value & ControlReset) != 0;

    private void Changed(PciField field)
    {
        bool reset = (_control.Value & ControlReset) != 0;
        bool starts = reset && !_inReset;
        _inReset = reset;
        UpdateBehind(starts);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        foreach (PciFunction function in Bus.Functions)
        {
            function.Dispose();
        }

        base.Dispose(disposing);
    }
}

/// <summary>The bus behind a bridge, as it is at the start.</summary>
/// <param name="Bus">Its number.</param>
/// <param name="Start">First address of the memory window, a whole number of MiB.</param>
/// <param name="Length">Bytes of the window, a whole number of MiB.</param>
internal readonly record struct BehindBridge(int Bus, uint Start, uint Length);
