namespace Vmm.Devices.Pci;

/// <summary>
/// A conventional PCI-to-PCI bridge (PCI-to-PCI Bridge Architecture 1.2) with one memory window, no I/O window and no prefetchable one
/// (their registers read as zero, 3.2.5.6 and 3.2.5.9). It comes configured, as firmware leaves it: bus numbers, window, memory and bus
/// master enabled. It is not a PCI Express port, whose bus would have one slot only. What is behind it is plugged the ACPI way.
/// </summary>
internal sealed class PciBridge : PciFunction
{
    private const uint Megabyte = 1 << 20, WindowMask = 0xFFF0, ControlReset = 0x40;
    private readonly PciField _secondaryBus, _memoryBase, _memoryLimit, _control;
    private bool _inReset;

    /// <param name="bus">Number of the bus behind it.</param>
    /// <param name="start">First address of its memory window, a whole number of MiB.</param>
    /// <param name="length">Bytes of the window, a whole number of MiB.</param>
    /// <param name="slot">Its slot on bus 0.</param>
    internal PciBridge(int bus, uint start, uint length, int slot) : base($"PCI bridge {bus}", 0x1B36, 0x0001, 0x060400, 0, headerType: 1)
    {
        Command.Value = CommandMemory | CommandBusMaster;
        Command.Written += Changed;
        Add(0x18, 1, 0, 0xFF); // primary bus
        _secondaryBus = Add(0x19, 1, (uint)bus, 0xFF);
        Add(0x1A, 1, (uint)bus, 0xFF); // subordinate bus
        Add(0x1B, 1, 0, 0xFF);         // latency timer, which nothing here waits for
        _memoryBase = Add(0x20, 2, (start >> 16) & WindowMask, WindowMask);
        _memoryLimit = Add(0x22, 2, ((start + length - 1) >> 16) & WindowMask, WindowMask);
        _control = Add(0x3E, 2, 0, 0x0043); // parity and SERR do nothing; secondary bus reset
        Bus = new PciBus(this, new BarAllocator(start, length), slot);
    }

    /// <summary>The bus behind it.</summary>
    internal PciBus Bus { get; }

    /// <summary>The number of that bus now; 0 is none.</summary>
    internal int SecondaryBus => (int)_secondaryBus.Value;

    /// <summary>Its window is open and holds the range (3.2.5.8).</summary>
    internal bool Forwards(ulong address, ulong length)
    {
        ulong start = (ulong)_memoryBase.Value << 16, end = ((ulong)_memoryLimit.Value << 16) + (Megabyte - 1);
        return DecodesMemory && address >= start && address <= end && length - 1 <= end - address;
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
        foreach (PciFunction function in Bus.Functions)
        {
            if (starts)
            {
                function.Reset();
            }

            function.UpdateAccess();
        }
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
