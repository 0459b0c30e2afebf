using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>The virtio-mmio register window as a driver sees it.</summary>
public sealed class VirtioMmioTests : IDisposable
{
    private readonly SmallRam _ram = new();
    private readonly DummyDevice _device = new();
    private readonly Pulses _line = new();
    private readonly VirtioMmio _window;

    public VirtioMmioTests() => _window = new VirtioMmio(_device, _ram.Memory, _line);

    public void Dispose()
    {
        _window.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void Identity_registers_follow_the_specification()
    {
        Assert.Equal((0x7472_6976u, 2u, 2u), (Read(0), Read(4), Read(8)));
        Assert.Equal(0x0201, BinaryPrimitives.ReadUInt16LittleEndian(Bytes(0x100, 2)));
    }

    [Fact]
    public void Device_is_activated_notified_interrupts_and_is_reset()
    {
        Start(0x1000);
        Assert.NotNull(_device.Active!.Queues[0]);
        Write(0x50, 0);
        Assert.True(_device.Active.Queues[0]!.Doorbell.TryTake(out _));
        _device.Active.Interrupts.SignalQueue(0);
        Assert.Equal((1, 1u), (_line.Count, Read(0x60)));
        Write(0x64, 1);
        Assert.Equal(0u, Read(0x60));
        Write(0x70, 0);
        Assert.Equal((1, 0u), (_device.Resets, Read(0x70)));
    }

    [Fact]
    public void A_queue_that_is_taken_away_while_in_use_is_not_touched_any_more()
    {
        Start(0x1000);
        Write(0x30, 0);
        Write(0x44, 0);
        Assert.Equal((0u, 1, 0x40u), (Read(0x44), _device.Resets, Read(0x70) & 0x40));
        Assert.Null(_device.Active);
        Write(0x70, 0);
        Start(0x1000);
        Assert.NotNull(_device.Active);
        Write(0x70, 0);
        Write(0x44, 0); // the way Linux does it: after a reset it means nothing
        Assert.Equal(0u, Read(0x70));
    }

    [Fact]
    public void Only_zero_resets_and_not_a_low_byte_of_zero()
    {
        Start(0x1000);
        Write(0x70, 0x100);
        Assert.Equal((0, 15u), (_device.Resets, Read(0x70)));
        Assert.NotNull(_device.Active);
    }

    [Fact]
    public void Shared_memory_that_does_not_exist_has_length_and_base_of_all_ones()
    {
        Write(0xAC, 1);
        Assert.All(new ulong[] { 0xB0, 0xB4, 0xB8, 0xBC }, register => Assert.Equal(uint.MaxValue, Read(register)));
    }

    [Fact]
    public void The_generation_changes_with_what_the_driver_has_read()
    {
        uint before = Read(0xFC);
        Assert.Equal(0x0403_0201u, Read(0x100));
        _device.Change(4, 99);
        Assert.Equal(0x0807_0663u, Read(0x104));
        Assert.NotEqual(before, Read(0xFC)); // 4.2.2.1
        Assert.Equal(Read(0xFC), Read(0xFC));
    }

    [Fact]
    public void A_driver_without_what_the_device_requires_never_sees_features_ok()
    {
        using VirtioMmio strict = new(new DummyDevice { Required = 1UL << 9 }, _ram.Memory, _line);
        Assert.Equal(3u, Negotiate(strict, 0));
        Assert.Equal(11u, Negotiate(strict, 1u << 9));
    }

    [Fact]
    public void A_ring_outside_ram_ends_in_needs_reset()
    {
        Start(0x8000_0000);
        Assert.Equal(0x40u, Read(0x70) & 0x40);
        Assert.Equal(2u, Read(0x60));
        Assert.Null(_device.Active);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw_and_the_device_can_be_started_afterwards()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "50000");
        Random random = new(78);
        byte[] data = new byte[8];
        int activations = 0;
        for (int i = 0; i < iterations; i++)
        {
            // Random registers never negotiate: start the device every now and then.
            if (i % 128 == 0)
            {
                Write(0x70, 0);
                Start(0x1000);
                activations += _device.Active is null ? 0 : 1;
            }

            Span<byte> bytes = data.AsSpan(0, 1 << random.Next(4));
            random.NextBytes(bytes);
            if (random.Next(3) > 0)
            {
                _window.Write((ulong)random.Next(0, 0x200), bytes);
            }
            else
            {
                _window.Read((ulong)random.Next(0, 0x200), bytes);
            }
        }

        Assert.Equal((iterations + 127) / 128, activations);
        Write(0x70, 0);
        Start(0x1000);
        Assert.NotNull(_device.Active);
    }

    private void Start(uint descriptors)
    {
        Write(0x70, 3);
        Write(0x24, 0);
        Write(0x20, 0);
        Write(0x24, 1);
        Write(0x20, 1);
        Write(0x70, 11);
        Assert.Equal(11u, Read(0x70));
        Write(0x30, 0);
        Write(0x38, 16);
        Write(0x80, descriptors);
        Write(0x84, 0);
        Write(0x90, 0x2000);
        Write(0x94, 0);
        Write(0xA0, 0x3000);
        Write(0xA4, 0);
        Write(0x44, 1);
        Write(0x70, 15);
    }

    /// <summary>The status after FEATURES_OK was written.</summary>
    private static uint Negotiate(VirtioMmio window, uint features)
    {
        foreach ((ulong register, uint value) in new (ulong, uint)[]
        {
            (0x70, 0), (0x70, 3), (0x24, 0), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11)
        })
        {
            window.Write(register, BitConverter.GetBytes(value));
        }

        byte[] status = new byte[4];
        window.Read(0x70, status);
        return BinaryPrimitives.ReadUInt32LittleEndian(status);
    }

    private byte[] Bytes(ulong offset, int length)
    {
        byte[] data = new byte[length];
        _window.Read(offset, data);
        return data;
    }

    private uint Read(ulong offset) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes(offset, 4));

    private void Write(ulong offset, uint value) => _window.Write(offset, BitConverter.GetBytes(value));

    private sealed class Pulses : IInterruptLine
    {
        public int Count { get; private set; }

        public void Set(bool level) => Count += level ? 1 : 0;
    }
}
