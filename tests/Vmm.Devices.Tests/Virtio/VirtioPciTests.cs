using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>The virtio-pci function as a driver sees it: ECAM, BAR and MSI-X, without KVM.</summary>
public sealed class VirtioPciTests : IDisposable
{
    private const ulong Window = 0xC000_0000, Ecam = 0xE000_0000, Slot = Ecam + (1 << 15);

    private readonly SmallRam _ram = new();
    private readonly DummyDevice _device = new();
    private readonly CountingMessages _messages = new();
    private readonly RecordingDoorbells _doorbells = new();
    private readonly AddressBus _mmio = new("MMIO");
    private readonly AddressBus _ports = new("ports");
    private readonly PciHostBridge _bridge;
    private readonly VirtioPciFunction _function;
    private ulong _bar = Window;

    public VirtioPciTests()
    {
        _bridge = new PciHostBridge(_mmio);
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
        _ports.Map(0xCF8, 8, _bridge.ConfigPorts, "configuration ports");
        _function = new VirtioPciFunction("dummy", _device, _ram.Memory, _messages, _doorbells);
        Assert.Equal(new PciAddress(0, 1), _bridge.Add(_function, new BarAllocator((uint)Window, 0x2000_0000)));
        Write32(Slot + 4, 6); // memory space, bus master
    }

    public void Dispose()
    {
        _bridge.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void Ecam_and_configuration_ports_show_the_same_function()
    {
        Assert.Equal(0x1042_1AF4u, Config32(0));
        byte[] data = new byte[4];
        for (uint register = 0; register < 256; register += 4)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(data, 0x8000_0800 | register);
            _ports.Write(0xCF8, data);
            _ports.Read(0xCFC, data);
            Assert.Equal(Config32((int)register), BinaryPrimitives.ReadUInt32LittleEndian(data));
        }

        Assert.Equal(uint.MaxValue, Read32(Ecam + (2 << 15)));
        Assert.Equal(uint.MaxValue, Read32(Ecam + (1 << 20)));
    }

    [Fact]
    public void Capability_list_names_the_five_virtio_windows_msix_and_express()
    {
        List<(byte Id, byte Type)> found = [];
        for (int at = (int)Config32(0x34) & 0xFF; at != 0; at = (int)(Config32(at) >> 8) & 0xFF)
        {
            uint head = Config32(at);
            found.Add(((byte)head, (byte)head == 9 ? (byte)(head >> 24) : (byte)0));
            Assert.True(found.Count < 20, "the capability list loops");
        }

        Assert.Equal([(9, 1), (9, 2), (9, 3), (9, 4), (9, 5), (0x11, 0), (0x10, 0)], found.Select(f => ((int)f.Id, (int)f.Type)));
    }

    [Fact]
    public void Bar_is_sized_and_moved_as_linux_does_it_and_doorbells_follow()
    {
        Assert.Equal([Window + 0x3000, Window + 0x3004], _doorbells.Bound.Order());
        Write32(Slot + 4, 0); // memory decoding off
        Assert.Empty(_doorbells.Bound);
        Write32(Slot + 0x10, uint.MaxValue);
        Assert.Equal(0xFFFF_8004u, Config32(0x10)); // 64 bits, not prefetchable
        Write32(Slot + 0x14, uint.MaxValue);
        Assert.Equal(uint.MaxValue, Config32(0x14));
        Write32(Slot + 0x14, 0);
        Write32(Slot + 0x10, 0xD000_0000);
        Write32(Slot + 4, 2);
        Assert.Equal([0xD000_3000, 0xD000_3004], _doorbells.Bound.Order());
        _bar = 0xD000_0000;
        Assert.Equal(2u, Read16(18)); // number of queues, at the new place
    }

    [Fact]
    public void Driver_without_version_1_is_refused()
    {
        Write8(20, 3);
        Write8(20, 11);
        Assert.Equal(3, Read8(20));
    }

    [Fact]
    public void A_driver_that_accepts_what_was_not_offered_is_refused()
    {
        AcceptFeatures(VirtioFeatures.Version1 | (1UL << 63));
        Write8(20, 11);
        Assert.Equal(0, Read8(20) & 8);
    }

    [Fact]
    public void Device_is_activated_notified_interrupts_and_is_reset()
    {
        Start();
        VirtioActivation active = _device.Active!;
        Assert.NotNull(active.Queues[0]);
        Assert.Null(active.Queues[1]);
        Assert.Equal(VirtioFeatures.Version1 | VirtioFeatures.EventIndex, active.Features);

        Write16At(_bar + 0x3000, 0);
        Assert.True(active.Queues[0]!.Doorbell.TryTake(out _));

        EnableMsix(vector: 1, masked: false);
        Write16(22, 0);
        Write16(26, 1);
        active.Interrupts.SignalQueue(0);
        Assert.Equal(1, _messages.Sent[1]);
        Assert.Equal((0xFEE0_0000UL, 0x41u), _messages.Routes[1]);

        Write8(20, 0);
        Assert.Equal(1, _device.Resets);
        Assert.Equal(0, Read8(20));
        Assert.Null(_device.Active);
    }

    [Fact]
    public void Without_bus_master_enable_no_queue_is_served_and_no_message_sent()
    {
        Write32(Slot + 4, 2);
        EnableMsix(vector: 0, masked: false);
        Write16(16, 0);
        Start();
        Assert.Equal(15, Read8(20));
        Assert.Null(_device.Active);
        Write32(Slot + 4, 6); // it was only late
        Assert.NotNull(_device.Active);

        Write32(Slot + 4, 2);
        Assert.Equal((1, 0x4F), (_device.Resets, Read8(20)));
        Assert.Null(_device.Active);
        Assert.Contains("bus mastering", _function.Transport.LastFault, StringComparison.Ordinal);
        Assert.Empty(_messages.Sent);
        Write32(Slot + 4, 6);
        Assert.Null(_device.Active); // where its rings were is not known any more: only a reset helps
        Write8(20, 0);
        Start();
        Assert.NotNull(_device.Active);
    }

    [Fact]
    public void A_masked_vector_stays_pending_and_is_sent_once_when_the_mask_goes()
    {
        Start();
        EnableMsix(vector: 1, masked: true);
        Write16(22, 0);
        Write16(26, 1);
        _device.Active!.Interrupts.SignalQueue(0);
        _device.Active!.Interrupts.SignalQueue(0);
        Assert.False(_messages.Sent.ContainsKey(1));
        Assert.Equal(2u, Read32(_bar + 0x6000)); // pending bit 1
        Write32(_bar + 0x4000 + 16 + 12, 0);
        Assert.Equal(1, _messages.Sent[1]);
        Assert.Equal(0u, Read32(_bar + 0x6000));
    }

    [Theory]
    [InlineData(0xFFFF_0000_0000UL)]
    [InlineData(0xFFFF_FFFF_FFFF_FFF0UL)]
    [InlineData(0x1001UL)]
    public void A_ring_that_cannot_be_ends_in_needs_reset_with_a_configuration_interrupt(ulong descriptors)
    {
        EnableMsix(vector: 0, masked: false);
        Write16(16, 0);
        Start(descriptors);
        Assert.Equal(0x40, Read8(20) & 0x40);
        Assert.Null(_device.Active);
        Assert.Equal(1, _messages.Sent[0]);
        Assert.Contains("queue 0", _function.Transport.LastFault, StringComparison.Ordinal);
    }

    [Fact]
    public void A_configuration_change_shows_in_isr_also_while_msix_is_on()
    {
        Start();
        EnableMsix(vector: 0, masked: false);
        Write16(16, 0);
        _device.Active!.Interrupts.SignalQueue(0);
        Assert.Equal(0, Read8(0x1000)); // queues have vectors of their own
        _device.Active.Interrupts.SignalConfigChanged();
        Assert.Equal((1, 0u), (_messages.Sent[0], Config32(4) >> 19 & 1));
        Assert.Equal(2, Read8(0x1000)); // 4.1.4.5.1
        Assert.Equal(0, Read8(0x1000)); // and reading clears it
    }

    [Fact]
    public void Without_msix_the_interrupt_status_bit_follows_isr()
    {
        Start();
        Assert.Equal(0u, Config32(4) >> 19 & 1);
        _device.Active!.Interrupts.SignalQueue(0);
        Assert.Equal(1u, Config32(4) >> 19 & 1); // PCI status, bit 3
        _device.Active.Interrupts.SignalConfigChanged();
        Assert.Equal(3, Read8(0x1000));
        Assert.Equal(0x0010u, Config32(4) >> 16); // the capability list stays
    }

    [Fact]
    public void The_generation_changes_with_what_the_driver_has_read()
    {
        byte before = Read8(21);
        Assert.Equal(0x0403_0201u, Read32(_bar + 0x2000));
        _device.Change(4, 99);
        Assert.Equal(0x0807_0663u, Read32(_bar + 0x2004));
        byte after = Read8(21);
        Assert.NotEqual(before, after); // what it read in two parts does not belong together (2.5.1)
        Assert.Equal(after, Read8(21));
        Write32(_bar + 0x2000, 7); // its own writes are no change
        Assert.Equal(7u, Read32(_bar + 0x2000));
        Assert.Equal(after, Read8(21));
    }

    [Fact]
    public void A_device_that_cannot_be_started_needs_a_reset_and_can_be_tried_again()
    {
        _device.Refusal = new InvalidOperationException("no threads");
        Start();
        Assert.Equal((0x4F, 1), (Read8(20), _device.Resets));
        Assert.Contains("no threads", _function.Transport.LastFault, StringComparison.Ordinal);
        _device.Refusal = null;
        Write8(20, 0);
        Start();
        Assert.NotNull(_device.Active);
    }

    [Fact]
    public void Configuration_window_reaches_the_bar()
    {
        int window = 0;
        for (int at = (int)Config32(0x34) & 0xFF; at != 0; at = (int)(Config32(at) >> 8) & 0xFF)
        {
            if ((byte)Config32(at) == 9 && (byte)(Config32(at) >> 24) == 5)
            {
                window = at;
            }
        }

        Write32(Slot + (ulong)window + 8, 0x2000); // device configuration
        Write32(Slot + (ulong)window + 12, 4);
        Assert.Equal(0x0403_0201u, Config32(window + 16));
        Write32(Slot + (ulong)window + 16, 0xAABB_CCDD);
        Assert.Equal(0xAABB_CCDDu, Read32(_bar + 0x2000));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw_and_the_device_can_be_started_afterwards()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "50000");
        Random random = new(77);
        byte[] data = new byte[8];
        int hits = 0, activations = 0;
        for (int i = 0; i < iterations; i++)
        {
            // Random configuration soon moves the BAR away and random registers never negotiate: bring both back often.
            if (i % 64 == 0)
            {
                Recover();
                if (i % 128 == 0)
                {
                    Start();
                    EnableMsix(random.Next(3), masked: false);
                    activations += _device.Active is null ? 0 : 1;
                }
            }

            hits += _function.MappedBar(0)?.Value == _bar ? 1 : 0;
            int length = 1 << random.Next(4);
            Span<byte> bytes = data.AsSpan(0, length);
            random.NextBytes(bytes);
            ulong address = random.Next(4) switch
            {
                0 => Slot + (ulong)random.Next(0, 4096),
                1 => Slot + (ulong)random.Next(0, 0x100),
                2 => _bar + (ulong)random.Next(0, 0x8000),
                _ => _bar + (ulong)random.Next(0, 0x40),
            };
            if (random.Next(2) == 0)
            {
                _mmio.Write(address, bytes);
            }
            else
            {
                _mmio.Read(address, bytes);
            }

            _device.Active?.Interrupts.SignalQueue(random.Next(4));
        }

        Assert.True(hits > iterations / 4, $"the BAR was in its place for {hits} of {iterations} accesses only");
        Assert.Equal((iterations + 127) / 128, activations);
        Recover();
        Start();
        Assert.NotNull(_device.Active);
    }

    private void Recover()
    {
        Write32(Slot + 4, 0);
        Write32(Slot + 0x10, (uint)Window);
        Write32(Slot + 0x14, 0);
        Write32(Slot + 4, 6);
        Write8(20, 0);
    }

    private void Start(ulong descriptors = 0x1000)
    {
        Write8(20, 3);
        AcceptFeatures(VirtioFeatures.Version1 | VirtioFeatures.EventIndex);
        Write8(20, 11);
        Assert.Equal(11, Read8(20));
        Write16(22, 0);
        Write16(24, 16);
        Write64(32, descriptors);
        Write64(40, 0x2000);
        Write64(48, 0x3000);
        Write16(28, 1);
        Write8(20, 15);
    }

    private void AcceptFeatures(ulong features)
    {
        Write32(_bar + 8, 0);
        Write32(_bar + 12, (uint)features);
        Write32(_bar + 8, 1);
        Write32(_bar + 12, (uint)(features >> 32));
    }

    private void EnableMsix(int vector, bool masked)
    {
        for (int at = (int)Config32(0x34) & 0xFF; at != 0; at = (int)(Config32(at) >> 8) & 0xFF)
        {
            if ((byte)Config32(at) == 0x11)
            {
                Write32(Slot + (ulong)at, Config32(at) | 0x8000_0000);
            }
        }

        ulong entry = _bar + 0x4000 + (16 * (ulong)vector);
        Write32(entry, 0xFEE0_0000);
        Write32(entry + 4, 0);
        Write32(entry + 8, 0x41);
        Write32(entry + 12, masked ? 1u : 0);
    }

    private uint Config32(int register) => Read32(Slot + (ulong)register);

    private uint Read32(ulong at)
    {
        Span<byte> data = stackalloc byte[4];
        _mmio.Read(at, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private byte Read8(ulong register)
    {
        Span<byte> data = stackalloc byte[1];
        _mmio.Read(_bar + register, data);
        return data[0];
    }

    private uint Read16(ulong register)
    {
        Span<byte> data = stackalloc byte[2];
        _mmio.Read(_bar + register, data);
        return BinaryPrimitives.ReadUInt16LittleEndian(data);
    }

    private void Write8(ulong register, byte value) => _mmio.Write(_bar + register, [value]);

    private void Write16(ulong register, ushort value) => Write16At(_bar + register, value);

    private void Write16At(ulong at, ushort value) => _mmio.Write(at, BitConverter.GetBytes(value));

    private void Write32(ulong at, uint value) => _mmio.Write(at, BitConverter.GetBytes(value));

    private void Write64(ulong register, ulong value)
    {
        Write32(_bar + register, (uint)value);
        Write32(_bar + register + 4, (uint)(value >> 32));
    }
}
