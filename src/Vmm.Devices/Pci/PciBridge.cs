namespace Vmm.Devices.Pci;

/// <summary>
/// A conventional PCI-to-PCI bridge (PCI-to-PCI Bridge Architecture 1.2) with one memory window, no I/O window and no prefetchable one (their registers read as
/// zero, 3.2.5.6 and 3.2.5.9). It comes configured, as firmware leaves it: bus numbers, window, memory and bus master enabled. It is not a PCI Express port,
/// whose bus would have one slot only. What is behind it is plugged the ACPI way.
/// </summary>
internal sealed class PciBridge : PciFunction
{
    private const int CommandOffset = 0x04, SecondaryBusOffset = 0x19, MemoryBaseOffset = 0x20, MemoryLimitOffset = 0x22, ControlOffset = 0x3E;
    private const ushort CommandMemory = 2, CommandBusMaster = 4, ControlReset = 0x40;
    private const uint Megabyte = 1 << 20;
    private bool _inReset;

    /// <param name="bus">Number of the bus behind it.</param>
    /// <param name="start">First address of its memory window, a whole number of MiB.</param>
    /// <param name="length">Bytes of the window, a whole number of MiB.</param>
    internal PciBridge(int bus, uint start, uint length) : base($"PCI bridge {bus}", 0x1B36, 0x0001, 0x060400, 0)
    {
        Config.Set8(0x0E, 1);
        Config.Set16(0x18, (ushort)(bus << 8)); // primary, secondary
        Config.Set8(0x1A, (byte)bus);           // subordinate
        Config.Set16(MemoryBaseOffset, (ushort)((start >> 16) & 0xFFF0));
        Config.Set16(MemoryLimitOffset, (ushort)(((start + length - 1) >> 16) & 0xFFF0));
        Config.Set16(CommandOffset, CommandMemory | CommandBusMaster);
        Config.Allow16(0x18, 0xFFFF);
        Config.Allow16(0x1A, 0xFFFF); // subordinate, and the latency timer, which nothing here waits for
        Config.Allow16(MemoryBaseOffset, 0xFFF0);
        Config.Allow16(MemoryLimitOffset, 0xFFF0);
        Config.Allow16(ControlOffset, 0x0043); // parity and SERR do nothing; secondary bus reset
        Bus = new PciBus(this, new BarAllocator(start, length));
    }

    /// <summary>The bus behind it.</summary>
    internal PciBus Bus { get; }

    /// <summary>The number of that bus now; 0 is none.</summary>
    internal int SecondaryBus => Config.U16(SecondaryBusOffset) & 0xFF;

    /// <summary>Its window is open and holds the range (3.2.5.8).</summary>
    internal bool Forwards(ulong address, ulong length)
    {
        ulong start = (ulong)(Config.U16(MemoryBaseOffset) & 0xFFF0) << 16;
        ulong end = ((ulong)(Config.U16(MemoryLimitOffset) & 0xFFF0) << 16) + (Megabyte - 1);
        return (Config.U16(CommandOffset) & CommandMemory) != 0 && address >= start && address <= end && length - 1 <= end - address;
    }

    /// <summary>It forwards the memory accesses of what is behind it.</summary>
    internal bool AllowsBusMasters => (Config.U16(CommandOffset) & CommandBusMaster) != 0;

    /// <inheritdoc/>
    protected override void Restored() => _inReset = (Config.U16(ControlOffset) & ControlReset) != 0;

    /// <inheritdoc/>
    protected override void ConfigWritten(int offset, int length)
    {
        bool reset = (Config.U16(ControlOffset) & ControlReset) != 0;
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
