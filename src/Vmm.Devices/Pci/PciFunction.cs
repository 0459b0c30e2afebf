using Vmm.Devices.Bus;
using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>Where memory BARs become reachable: the MMIO bus of the machine.</summary>
public interface IMmioMap
{
    /// <summary>Makes <paramref name="device"/> answer at a range; false when the range is taken (a guest moved a BAR onto something).</summary>
    bool TryMap(GuestAddress start, ulong length, IBusDevice device, string name);

    /// <summary>Undoes <see cref="TryMap"/>.</summary>
    void Unmap(GuestAddress start);
}

/// <summary>
/// A PCI function with 32-bit memory BARs, of header type 0 unless it says otherwise. Configuration access is serialized by <see cref="PciHostBridge"/>; BAR access is not.
/// </summary>
public abstract class PciFunction : IDisposable
{
    private const int CommandOffset = 0x04;
    private const ushort CommandMemory = 2, CommandBusMaster = 4;
    private readonly BarSlot?[] _bars = new BarSlot?[6];
    private IMmioMap? _mmio;
    private PciBus? _bus;
    private bool _busMaster;

    /// <summary>Builds the header (PCI Express base spec 7.5.1).</summary>
    protected PciFunction(string name, ushort vendor, ushort device, uint classCode, byte revision)
    {
        Name = name;
        Config.Set16(0x00, vendor);
        Config.Set16(0x02, device);
        Config.Set32(0x08, (classCode << 8) | revision);
        Config.Allow16(CommandOffset, 0x0406); // memory space, bus master, INTx disable
        Config.Allow16(0x3C, 0x00FF);          // interrupt line: a scratch byte, there is no INTx
        Config.Allow16(0x0C, 0x00FF);          // cache line size
    }

    /// <summary>Name for messages.</summary>
    public string Name { get; }

    /// <summary>The configuration space.</summary>
    public PciConfigSpace Config { get; } = new();

    /// <summary>Base address of a BAR; null when memory decoding is off or the BAR does not exist.</summary>
    public GuestAddress? MappedBar(int bar) => _bars[bar]?.MappedAt;

    /// <summary>Lengths of the BARs that exist, by index, for assignment.</summary>
    internal IEnumerable<BarSlot> Bars
    {
        get
        {
            foreach (BarSlot? slot in _bars)
            {
                if (slot is not null)
                {
                    yield return slot;
                }
            }
        }
    }

    /// <summary>Adds a 32-bit non-prefetchable memory BAR; <paramref name="length"/> is a power of two of at least 16 bytes.</summary>
    protected void AddBar(int index, uint length, IBusDevice device)
    {
        _bars[index] = new BarSlot(index, length, device);
        Config.Allow32(0x10 + (4 * index), ~(length - 1));
    }

    /// <summary>Called after software wrote configuration; the range is inside the space.</summary>
    protected virtual void ConfigWritten(int offset, int length) { }

    /// <summary>Called before software reads configuration (windows such as virtio's PCI configuration access).</summary>
    protected virtual void ConfigReading(int offset, int length) { }

    /// <summary>Software allowed the function to access memory and send messages, or forbids it (PCI Express base spec 7.5.1.1.3); forbidden at first.</summary>
    protected virtual void BusMasterChanged(bool allowed) { }

    /// <summary>A memory BAR appeared at, or vanished (null) from, guest physical addresses.</summary>
    protected virtual void BarMoved(int bar, GuestAddress? at) { }

    /// <summary>It got its slot.</summary>
    /// <param name="behindBridge">On a conventional PCI bus, which has no PCI Express functions.</param>
    protected virtual void Attached(bool behindBridge) { }

    /// <summary>The function was reset (PCI 3.0, 2.2.1): its registers have their first values, nothing of it goes on. Under the lock of the configuration.</summary>
    protected virtual void OnReset() { }

    internal void Attach(IMmioMap mmio, PciBus bus)
    {
        _mmio = mmio;
        _bus = bus;
        Attached(behindBridge: bus.IsBehindBridge);
        UpdateMappings();
    }

    /// <summary>As its bus is reset: out of the memory map, forbidden to access memory, BARs without addresses.</summary>
    internal void Reset()
    {
        Config.Set16(CommandOffset, 0);
        foreach (BarSlot bar in Bars)
        {
            AssignBar(bar.Index, 0);
        }

        UpdateAccess();
        OnReset();
    }

    /// <summary>Anew after its command register, its BARs, or the bridge it is behind changed: where its BARs are, and whether it may access memory.</summary>
    internal void UpdateAccess()
    {
        UpdateMappings();
        bool busMaster = (Config.U16(CommandOffset) & CommandBusMaster) != 0 && _bus is not { AllowsBusMasters: false };
        if (busMaster != _busMaster)
        {
            _busMaster = busMaster;
            BusMasterChanged(busMaster);
        }
    }

    /// <summary>Off the bus: no BAR answers any more, and none will.</summary>
    internal void Detach()
    {
        foreach (BarSlot? slot in _bars)
        {
            if (slot is not null)
            {
                Unmap(slot);
            }
        }

        _mmio = null;
    }

    internal void AssignBar(int index, uint address) => Config.Set32(0x10 + (4 * index), address);

    internal void EnableMemory() => Config.Set16(CommandOffset, (ushort)(Config.U16(CommandOffset) | CommandMemory));

    internal void ReadConfig(int offset, Span<byte> data)
    {
        ConfigReading(offset, data.Length);
        Config.Read(offset, data);
    }

    internal void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        Config.Write(offset, data);
        if (offset < 0x28 && offset + data.Length > CommandOffset)
        {
            UpdateAccess();
        }

        ConfigWritten(offset, data.Length);
    }

    private void UpdateMappings()
    {
        if (_mmio is null)
        {
            return;
        }

        bool decoding = (Config.U16(CommandOffset) & CommandMemory) != 0;
        foreach (BarSlot? slot in _bars)
        {
            if (slot is null)
            {
                continue;
            }

            uint address = Config.U32(0x10 + (4 * slot.Index)) & ~0xFu;
            // While software sizes a BAR it holds all ones; that is no place (7.5.1.2.1).
            bool place = decoding && address != 0 && address != ~(slot.Length - 1) && _bus!.Forwards(address, slot.Length);
            GuestAddress? wanted = place ? new GuestAddress(address) : null;
            if (wanted == slot.MappedAt)
            {
                continue;
            }

            Unmap(slot);
            if (wanted is { } at && _mmio.TryMap(at, slot.Length, slot.Device, Name))
            {
                slot.MappedAt = at;
                BarMoved(slot.Index, at);
            }
        }
    }

    private void Unmap(BarSlot slot)
    {
        if (slot.MappedAt is { } old)
        {
            slot.MappedAt = null;
            BarMoved(slot.Index, null);
            _mmio!.Unmap(old);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases the device behind the function.</summary>
    protected virtual void Dispose(bool disposing) { }

    internal sealed class BarSlot(int index, uint length, IBusDevice device)
    {
        public int Index => index;

        public uint Length => length;

        public IBusDevice Device => device;

        public GuestAddress? MappedAt { get; set; }
    }
}
