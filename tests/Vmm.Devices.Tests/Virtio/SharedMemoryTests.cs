using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>Shared memory of a device as its driver finds it: a capability that names a BAR (virtio 1.2 section 4.1.4.7).</summary>
public sealed class SharedMemoryTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000, Config = Ecam + (1 << 15), High = 0x10_0000_0000, Length = 0x1_4000_0000;

    private readonly SmallRam _ram = new();
    private readonly AddressBus _mmio = new("MMIO");
    private readonly PciHostBridge _bridge;

    public SharedMemoryTests()
    {
        _bridge = new PciHostBridge(_mmio) { Mappings = new Accepting() };
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
    }

    public void Dispose()
    {
        _bridge.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void A_region_is_found_by_its_capability_and_says_where_it_is()
    {
        SharedMemoryRegion region = new(7, new HostMapping(0x7000_0000, Length));
        Add(new Device(region));
        int at = Capabilities().Single(c => c.Id == 9 && c.Type == 8).At;
        Assert.Equal((24u, 2u, 7u), (Byte(at + 2), Byte(at + 4), Byte(at + 5)));
        Assert.Equal(
            [0u, unchecked((uint)Length), 0u, (uint)(Length >> 32)], [Read32(at + 8), Read32(at + 12), Read32(at + 16), Read32(at + 20)]);
        Assert.Equal(
            [(9, 1), (9, 2), (9, 3), (9, 4), (9, 5), (9, 8), (0x11, 0), (0x10, 0)],
            Capabilities().Select(c => (c.Id, c.Id == 9 ? c.Type : 0)));
        Assert.Equal((0xCu, 0x10u), (Read32(0x18), Read32(0x1C)));
        Assert.Equal(High, region.Address!.Value.Value);
        Write32(4, 4);
        Assert.Null(region.Address);
        Write32(0x1C, 0x20);
        Write32(4, 6);
        Assert.Equal(0x20_0000_0000UL, region.Address!.Value.Value);
    }

    [Fact]
    public void A_device_without_shared_memory_has_neither_capability_nor_bar()
    {
        Add(new Device());
        Assert.DoesNotContain(Capabilities(), c => c.Id == 9 && c.Type == 8);
        Write32(0x18, uint.MaxValue);
        Assert.Equal(0u, Read32(0x18));
    }

    [Fact]
    public void A_second_region_is_refused_by_name()
    {
        SharedMemoryRegion region = new(0, new HostMapping(0x7000_0000, 4096));
        using Device device = new(region, region);
        Assert.Contains("pmem", Assert.Throws<InvalidOperationException>(() => Function(device)).Message, StringComparison.Ordinal);
    }

    private void Add(VirtioDevice device) =>
        _bridge.Add(Function(device), new BarAllocator(0xC000_0000, 1 << 28), new BarAllocator(High, 1UL << 36));

    private VirtioPciFunction Function(VirtioDevice device) => new("pmem", device, _ram.Memory, new CountingMessages(), null);

    private List<(int At, int Id, int Type)> Capabilities()
    {
        List<(int, int, int)> found = [];
        for (uint at = Byte(0x34); at != 0; at = Byte((int)at + 1))
        {
            found.Add(((int)at, (int)Byte((int)at), (int)Byte((int)at + 3)));
        }

        return found;
    }

    private uint Byte(int register) => (Read32(register & ~3) >> (8 * (register & 3))) & 0xFF;

    private uint Read32(int register)
    {
        byte[] data = new byte[4];
        _mmio.Read(Config + (ulong)register, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write32(int register, uint value) => _mmio.Write(Config + (ulong)register, BitConverter.GetBytes(value));

    private sealed class Accepting : IBarMappings
    {
        public bool TryMap(GuestAddress start, nint hostAddress, ulong length, bool isReadOnly) => true;

        public void Unmap(GuestAddress start) { }
    }

    private sealed class Device(params SharedMemoryRegion[] regions) : VirtioDevice
    {
        public override ushort DeviceType => 27;

        public override ulong DeviceFeatures => 0;

        public override IReadOnlyList<SharedMemoryRegion> SharedMemory => regions;

        public override IReadOnlyList<ushort> QueueSizes => [64];

        public override int ConfigLength => 16;

        public override void ReadConfig(int offset, Span<byte> data) => data.Clear();

        public override void Activate(VirtioActivation activation) { }

        public override bool TryHold(TimeSpan patience) => true;

        public override void Resume()
        {
        }

        public override void Reset() { }

        protected override void Dispose(bool disposing) { }
    }
}
