using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>
/// A PCI function with memory BARs, of header type 0 unless it says otherwise. Configuration access is serialized by
/// <see cref="PciHostBridge"/>; BAR access is not.
/// </summary>
public abstract class PciFunction : IDisposable
{
    private protected const uint CommandPorts = 1, CommandMemory = 2, CommandBusMaster = 4;
    private const uint CommandNoIntx = 0x400, StatusInterrupt = 8, HeaderMultiFunction = 0x80;
    private readonly BarSlot?[] _bars = new BarSlot?[6];
    private readonly PciField _headerType, _interruptPin;
    private IntxPin? _intx;
    private VanishedBars? _mmio;
    private IBarMappings? _mappings;
    private PciBus? _bus;
    private bool _busMaster;

    /// <summary>Builds the header (PCI Express base spec 7.5.1).</summary>
    /// <param name="name">Name for messages.</param>
    /// <param name="vendor">Vendor ID.</param>
    /// <param name="device">Device ID.</param>
    /// <param name="classCode">Class code, 24 bits.</param>
    /// <param name="revision">Revision ID.</param>
    /// <param name="headerType">Header layout; what is in it from 0x10 on is for the caller to add.</param>
    /// <param name="decodesPorts">Software switches access to its ports, which are not in BARs.</param>
    protected PciFunction(
        string name, ushort vendor, ushort device, uint classCode, byte revision, byte headerType = 0, bool decodesPorts = false)
    {
        Name = name;
        Config.Add(new PciField(0x00, 2, vendor));
        Config.Add(new PciField(0x02, 2, device));
        uint writable = CommandMemory | CommandBusMaster | CommandNoIntx | (decodesPorts ? CommandPorts : 0);
        Command = Config.Add(new PciField(0x04, 2, 0) { Writable = writable, Written = _ => UpdateAccess() });
        Config.Add(new PciField(0x08, 4, (classCode << 8) | revision));
        Config.Add(new PciField(0x0C, 1, 0) { Writable = 0xFF }); // cache line size
        _headerType = Config.Add(new PciField(0x0E, 1, headerType));
        Config.Add(new PciField(0x3C, 1, 0) { Writable = 0xFF }); // interrupt line: what firmware noted, a scratch byte here
        _interruptPin = Config.Add(new PciField(0x3D, 1, 0));
    }

    /// <summary>Name for messages.</summary>
    public string Name { get; }

    /// <summary>The configuration space.</summary>
    public PciConfigSpace Config { get; } = new();

    /// <summary>The command register (7.5.1.1.3).</summary>
    protected PciField Command { get; }

    /// <summary>It decodes the addresses of its BARs, or of its window.</summary>
    internal bool DecodesMemory => (Command.Value & CommandMemory) != 0;

    /// <summary>It may access memory, as far as its own register says.</summary>
    internal bool IsBusMaster => (Command.Value & CommandBusMaster) != 0;

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

    /// <summary>Adds a memory BAR; one of 64 bits takes the next register, too.</summary>
    /// <param name="index">Its register, 0 to 5.</param>
    /// <param name="bar">What it is.</param>
    /// <exception cref="ArgumentException">A register that it needs is taken, or there is none.</exception>
    protected void AddBar(int index, Bar bar)
    {
        int last = bar.IsWide ? index + 1 : index;
        bool exists = index >= 0 && last < _bars.Length;
        if (!exists || _bars[index] is not null || _bars[last] is not null || (index > 0 && _bars[index - 1]?.Bar.IsWide == true))
        {
            throw new ArgumentException($"{Name}: there is no room for a BAR at register {index}", nameof(index));
        }

        BarSlot slot = new(index, bar);
        slot.AddFields(Config, _ => UpdateAccess());
        _bars[index] = slot;
    }

    /// <summary>
    /// Gives it an interrupt pin, INTA (7.5.1.1.13): shown once its bus leads the pin somewhere. Call <see cref="IntxPin.Update"/> after
    /// every change of the cause.
    /// </summary>
    /// <param name="isPending">There is a cause that no message is sent for. Any thread; takes no lock.</param>
    protected IntxPin AddInterruptPin(Func<bool> isPending)
    {
        IntxPin pin = new(isPending);
        Config.Status.Reading = status => status.Value = (status.Value & ~StatusInterrupt) | (pin.IsPending ? StatusInterrupt : 0);
        return _intx = pin;
    }

    /// <summary>
    /// Software allowed the function to access memory and send messages, or forbids it (PCI Express base spec 7.5.1.1.3); forbidden at
    /// first.
    /// </summary>
    protected virtual void BusMasterChanged(bool allowed) { }

    /// <summary>A memory BAR appeared at, or vanished (null) from, guest physical addresses.</summary>
    protected virtual void BarMoved(int bar, GuestAddress? at) { }

    /// <summary>It got its slot.</summary>
    /// <param name="bus">What is around it.</param>
    protected virtual void Attached(PciBusKind bus) { }

    /// <summary>
    /// The function was reset (PCI 3.0, 2.2.1): its fields have their first values, nothing of it is to go on. Under the lock of the
    /// configuration.
    /// </summary>
    protected virtual void OnReset() { }

    /// <summary>Shows in its header type whether its slot has more functions (7.5.1.1.9).</summary>
    internal void ShowOthers(bool any) =>
        _headerType.SetFixed((_headerType.Value & ~HeaderMultiFunction) | (any ? HeaderMultiFunction : 0));

    /// <summary>Its pin leads to a line from now on.</summary>
    /// <param name="lines">The lines of the machine; none at all hides the pin.</param>
    /// <param name="index">Which of them: <see cref="PciBus.LineOf"/>.</param>
    internal void ConnectPin(IReadOnlyList<WiredOr> lines, int index)
    {
        if (_intx is { } pin)
        {
            _interruptPin.SetFixed(lines.Count == 0 ? 0u : 1);
            pin.Connect(lines.Count == 0 ? null : lines[index % lines.Count].AddInput());
        }
    }

    internal void Attach(VanishedBars mmio, IBarMappings? mappings, PciBus bus)
    {
        _mmio = mmio;
        _mappings = mappings;
        _bus = bus;
        Attached(bus.Kind);
        UpdateMappings();
    }

    /// <summary>As its bus is reset: out of the memory map, forbidden to access memory, BARs without addresses.</summary>
    internal void Reset()
    {
        Config.Reset();
        UpdateAccess();
        OnReset();
    }

    /// <summary>
    /// Anew after its command register, its BARs, or the bridge it is behind changed: where its BARs are, and whether it may access memory.
    /// </summary>
    internal void UpdateAccess()
    {
        UpdateMappings();
        _intx?.Disable((Command.Value & CommandNoIntx) != 0);
        bool busMaster = IsBusMaster && _bus is not { AllowsBusMasters: false };
        if (busMaster != _busMaster)
        {
            _busMaster = busMaster;
            BusMasterChanged(busMaster);
        }
    }

    /// <summary>Vendor in the low half, device in the high one.</summary>
    internal uint Identity
    {
        get
        {
            Span<byte> bytes = stackalloc byte[4];
            Config.Read(0, bytes);
            return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        }
    }

    /// <summary>The state for saving.</summary>
    internal byte[] CaptureConfig() => Config.CaptureWritten();

    /// <summary>
    /// Takes what software had written; nothing else of the space changes. BARs are where it says, as far as there is room.
    /// </summary>
    internal void RestoreConfig(ReadOnlySpan<byte> written)
    {
        Config.RestoreWritten(written);
        UpdateAccess();
        Restored();
    }

    /// <summary>Stops decoding, so that the BARs of others find room.</summary>
    internal void StopDecoding()
    {
        Command.Value = 0;
        UpdateAccess();
    }

    /// <summary>The configuration space was restored.</summary>
    protected virtual void Restored() { }

    /// <summary>Off the bus: no BAR answers any more, and none will. The addresses that they had at the start are free.</summary>
    /// <param name="surprise">The guest does not know.</param>
    internal void Detach(bool surprise)
    {
        foreach (BarSlot slot in Bars)
        {
            GuestAddress? was = slot.Bar.Mapping is null ? slot.MappedAt : null;
            Unmap(slot);
            if (surprise && was is { } at)
            {
                _mmio!.Add(at, slot.Bar.Length);
            }
        }

        ReleaseBars();
        _intx?.Disconnect();

        _mmio = null;
    }

    /// <summary>
    /// Gives each BAR an address, as firmware does: prefetchable ones of 64 bits from the high window when there is one.
    /// </summary>
    /// <exception cref="InvalidOperationException">A window is full; no address is taken then.</exception>
    internal void AssignBars(BarAllocator low, BarAllocator? high)
    {
        try
        {
            foreach (BarSlot slot in Bars)
            {
                BarAllocator allocator = slot.Bar.Kind == BarKind.Memory64Prefetchable ? high ?? low : low;
                ulong at = allocator.Take(slot.Bar.Length, Name);
                slot.Reserved = (allocator, at);
                slot.Assign(at);
            }
        }
        catch
        {
            ReleaseBars();
            throw;
        }
    }

    private void ReleaseBars()
    {
        foreach (BarSlot slot in Bars)
        {
            if (slot.Reserved is { } reserved)
            {
                slot.Reserved = null;
                reserved.Allocator.Release(reserved.Address);
            }
        }
    }

    internal void EnableMemory() => Command.Value |= CommandMemory;

    private void UpdateMappings()
    {
        if (_mmio is null)
        {
            return;
        }

        foreach (BarSlot slot in Bars)
        {
            bool reachable = DecodesMemory && slot.Wanted() is { } place && _bus!.Forwards(place.Value, slot.Bar.Length);
            GuestAddress? wanted = reachable ? slot.Wanted() : null;
            if (wanted == slot.MappedAt)
            {
                continue;
            }

            Unmap(slot);
            if (wanted is { } at && slot.TryMap(at, _mmio, _mappings, Name))
            {
                BarMoved(slot.Index, at);
            }
        }
    }

    private void Unmap(BarSlot slot)
    {
        if (slot.MappedAt is not null)
        {
            BarMoved(slot.Index, null);
            slot.Unmap(_mmio!, _mappings);
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
}
