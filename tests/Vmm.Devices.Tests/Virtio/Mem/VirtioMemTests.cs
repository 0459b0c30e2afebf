using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Mem;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio.Mem;

public sealed class VirtioMemTests
{
    private const ulong Start = 4UL << 30, Block = 2 << 20, Requests = 0x80000, Answers = 0x90000;

    [Fact]
    public void The_guest_plugs_what_is_asked_for_and_no_more()
    {
        FakeMemory memory = new();
        using VirtioMem device = Device(memory);
        using QueueGuest guest = new(device);
        Assert.Equal((MemAnswer.Nack, 0), Ask(guest, 0, Start, 1));
        device.SetRequested(ByteSize.MiB(5)); // two blocks and a half
        Assert.Equal(1, guest.ConfigChanges);
        Assert.Equal((MemAnswer.Ack, 0), Ask(guest, 0, Start + (3 * Block), 2));
        Assert.Equal((MemAnswer.Nack, 0), Ask(guest, 0, Start, 1));
        Assert.Equal(["+3x2"], memory.Calls);
        Assert.Equal(new VirtioMemInfo(ByteSize.MiB(64), ByteSize.MiB(4), ByteSize.MiB(4), true), device.Info);
        Assert.Equal((ulong)ByteSize.MiB(4), Config(device, 40));
        Assert.Equal((MemAnswer.Ack, 2), Ask(guest, 3, Start + (2 * Block), 2));
        Assert.Equal((MemAnswer.Ack, 0), Ask(guest, 3, Start + (3 * Block), 2));
        Assert.Equal((MemAnswer.Ack, 1), Ask(guest, 3, Start, 3));
    }

    [Fact]
    public void Nonsense_is_an_error_and_changes_nothing()
    {
        FakeMemory memory = new();
        using VirtioMem device = Device(memory);
        using QueueGuest guest = new(device);
        device.SetRequested(ByteSize.MiB(64));
        Assert.Equal(MemAnswer.Ack, Ask(guest, 0, Start, 4).Answer);
        foreach ((ushort kind, ulong address, ushort blocks) in new (ushort, ulong, ushort)[]
        {
            (0, Start, 1), (0, Start + (3 * Block), 2), (0, Start + 1, 1), (0, Start - Block, 1), (0, Start + (32 * Block), 1),
            (0, Start + (31 * Block), 2), (0, Start + (8 * Block), 0),
            (0, ulong.MaxValue - Block + 1, 2), (1, Start + (4 * Block), 1), (1, Start + (3 * Block), 2), (1, 0, 1), (3, Start, 33),
            (3, 0, ushort.MaxValue), (4, Start, 1), (ushort.MaxValue, 0, 0),
        })
        {
            Assert.Equal((MemAnswer.Error, 0), Ask(guest, kind, address, blocks));
        }

        Assert.Equal(["+0x4"], memory.Calls);
        Assert.Equal(ByteSize.MiB(8), device.Info.Plugged);
    }

    [Fact]
    public void A_host_without_room_says_busy()
    {
        FakeMemory memory = new() { Full = true };
        using VirtioMem device = Device(memory);
        using QueueGuest guest = new(device);
        device.SetRequested(ByteSize.MiB(2));
        Assert.Equal(MemAnswer.Busy, Ask(guest, 0, Start, 1).Answer);
        memory.Full = false;
        Assert.Equal(MemAnswer.Ack, Ask(guest, 0, Start, 1).Answer);
    }

    [Fact]
    public void Plugged_memory_outlives_a_driver_and_unplug_all_gives_it_back_in_runs()
    {
        FakeMemory memory = new();
        using VirtioMem device = Device(memory);
        using QueueGuest guest = new(device);
        device.SetRequested(ByteSize.MiB(64));
        Ask(guest, 0, Start + Block, 2);
        Ask(guest, 0, Start + (31 * Block), 1);
        device.Reset();
        Assert.Equal(new VirtioMemInfo(ByteSize.MiB(64), ByteSize.MiB(64), ByteSize.MiB(6), false), device.Info);
        guest.Activate();
        device.SetRequested(default);
        Assert.Equal(MemAnswer.Ack, Ask(guest, 2, 0, 0).Answer);
        Assert.Equal(["+1x2", "+31x1", "-1x2", "-31x1"], memory.Calls);
        Assert.Equal(default, device.Info.Plugged);
    }

    [Fact]
    public void A_short_request_or_one_without_room_for_its_answer_needs_a_reset()
    {
        foreach ((int request, int answer) in new[] { (23, 10), (24, 9), (24, 0) })
        {
            using VirtioMem device = Device(new FakeMemory());
            using QueueGuest guest = new(device);
            if (answer > 0)
            {
                guest.Post(0, (Requests, request, false), (Answers, answer, true));
            }
            else
            {
                guest.Post(0, (Requests, request, false));
            }

            Assert.Contains("mem", guest.WaitNeedsReset(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_request_may_come_in_pieces()
    {
        using VirtioMem device = Device(new FakeMemory());
        using QueueGuest guest = new(device);
        device.SetRequested(ByteSize.MiB(2));
        Write(guest, 0, Start, 1);
        guest.Post(0, (Requests, 5, false), (Requests + 5, 19, false), (Answers, 16, true));
        Assert.Equal(10u, guest.WaitUsed(0).Written);
        Assert.Equal(0, guest.Ram(Answers, 1)[0]);
        Assert.Equal(ByteSize.MiB(2), device.Info.Plugged);
    }

    [Theory]
    [InlineData(1, 9)]
    [InlineData(8, 2)]
    [InlineData(9, 16)]
    public void The_answer_may_go_to_pieces(int first, int second)
    {
        using VirtioMem device = Device(new FakeMemory());
        using QueueGuest guest = new(device);
        device.SetRequested(ByteSize.MiB(2));
        Ask(guest, 0, Start, 1);
        Write(guest, 3, Start, 2);
        guest.Ram(Answers, 32).Fill(0xEE);
        guest.Post(0, (Requests, 24, false), (Answers, first, true), (Answers + 0x1000, second, true));
        Assert.Equal(10u, guest.WaitUsed(0).Written);
        byte[] whole = [.. guest.Ram(Answers, first), .. guest.Ram(Answers + 0x1000, 10 - first)];
        Assert.Equal([0, 0, 0, 0, 0, 0, 0, 0, 2, 0], whole); // ACK, mixed
        Assert.Equal(0xEE, guest.Ram(Answers + (ulong)first, 1)[0]);
    }

    [Fact]
    public void A_driver_that_would_touch_unplugged_memory_is_refused()
    {
        using VirtioMem device = Device(new FakeMemory());
        Assert.Equal(2UL, device.RequiredFeatures); // VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE; the transports act on it
        Assert.Equal(2UL, device.DeviceFeatures & 2);
    }

    [Fact]
    public void A_size_that_crosses_4_gib_is_not_read_torn()
    {
        FakeMemory memory = new();
        using SmallRam ram = new();
        using VirtioMem device = new(
            new VirtioMemOptions
            {
                Start = new GuestAddress(Start),
                Length = ByteSize.MiB(8192),
                BlockSize = new ByteSize(Block),
                Requested = ByteSize.MiB(4094)
            },
            memory);
        using VirtioMmio window = new(device, ram.Memory, new NoLine());
        Assert.Equal(4094UL << 20, Read64(window, 0x100 + 48, () => { }));
        Assert.Equal(4096UL << 20, Read64(window, 0x100 + 48, () => device.SetRequested(ByteSize.MiB(4096))));
    }

    /// <summary>As Linux reads 64 bits: two halves, again while the generation changes; something happens between the halves.</summary>
    private static ulong Read64(VirtioMmio window, ulong offset, Action between)
    {
        while (true)
        {
            uint before = Read32(window, 0xFC), low = Read32(window, offset);
            between();
            ulong value = low | ((ulong)Read32(window, offset + 4) << 32);
            if (Read32(window, 0xFC) == before)
            {
                return value;
            }
        }
    }

    private static uint Read32(VirtioMmio window, ulong offset)
    {
        Span<byte> data = stackalloc byte[4];
        window.Read(offset, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private sealed class NoLine : Vmm.Devices.Bus.IInterruptLine
    {
        public void Set(bool level) { }
    }

    [Fact]
    public void Whatever_is_asked_the_blocks_and_the_memory_agree()
    {
        Gen<(int Kind, int At, int Count, int Wish)> request = from kind in Gen.Choose(0, 4)
                                                               from at in Gen.Choose(-2, 34)
                                                               from count in Gen.Choose(0, 12)
                                                               from wish in Gen.Choose(0, 40)
                                                               select (kind, at, count, wish);
        Prop.ForAll(request.ListOf().ToArbitrary(), steps =>
        {
            FakeMemory memory = new();
            MemBlocks blocks = new(new GuestAddress(Start), ByteSize.MiB(64), new ByteSize(Block), memory);
            foreach ((int kind, int at, int count, int wish) in steps)
            {
                blocks.RequestedBytes = (ulong)wish * Block;
                ulong address = unchecked(Start + ((ulong)at * Block)), before = blocks.PluggedBytes;
                MemAnswer answer = kind switch
                {
                    0 or 4 => blocks.Plug(address, (ushort)count),
                    1 => blocks.Unplug(address, (ushort)count),
                    2 => blocks.UnplugAll(),
                    _ => blocks.State(address, (ushort)count, out _),
                };
                Assert.True(answer == MemAnswer.Ack || blocks.PluggedBytes == before);
                Assert.True(blocks.PluggedBytes <= Math.Max(before, blocks.RequestedBytes)); // never grows beyond the wish
                // and the memory saw the same (it refuses double work itself)
                Assert.Equal((ulong)memory.Present.Count * Block, blocks.PluggedBytes);
            }
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_rings_and_requests_do_no_harm()
    {
        FakeMemory memory = new();
        VirtioMem device = Device(memory);
        device.SetRequested(ByteSize.MiB(32));
        QueueFuzz.Run(device, 24, (random, guest) =>
        {
            Write(guest, (ushort)random.Next(5), Start + ((ulong)random.Next(40) * Block), (ushort)random.Next(6));
            guest.Post(0, (Requests, 24, false), (Answers, 10, true));
        });
        Assert.Equal((ulong)memory.Present.Count * Block, device.Info.Plugged.Bytes);
    }

    private static VirtioMem Device(FakeMemory memory) => new(
        new VirtioMemOptions { Start = new GuestAddress(Start), Length = ByteSize.MiB(64), BlockSize = new ByteSize(Block), Vnode = 1 },
        memory);

    private static (MemAnswer Answer, int State) Ask(QueueGuest guest, ushort kind, ulong address, ushort blocks)
    {
        Write(guest, kind, address, blocks);
        guest.Ram(Answers, 10).Fill(0xEE);
        guest.Post(0, (Requests, 24, false), (Answers, 10, true));
        Assert.Equal(10u, guest.WaitUsed(0).Written);
        Span<byte> answer = guest.Ram(Answers, 10);
        return ((MemAnswer)BinaryPrimitives.ReadUInt16LittleEndian(answer), BinaryPrimitives.ReadUInt16LittleEndian(answer[8..]));
    }

    private static void Write(QueueGuest guest, ushort kind, ulong address, ushort blocks)
    {
        Span<byte> bytes = guest.Ram(Requests, 24);
        bytes.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, kind);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[8..], address);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[16..], blocks);
    }

    private static ulong Config(VirtioMem device, int offset)
    {
        Span<byte> value = stackalloc byte[8];
        device.ReadConfig(offset, value);
        return BinaryPrimitives.ReadUInt64LittleEndian(value);
    }

    /// <summary>Remembers what was asked of it and fails on what a device must not ask.</summary>
    private sealed class FakeMemory : IPluggableMemory
    {
        public List<string> Calls { get; } = [];

        public HashSet<ulong> Present { get; } = [];

        public bool Full { get; set; }

        public bool TryPlug(ulong offset, ulong length)
        {
            for (ulong at = offset; !Full && at < offset + length; at += Block)
            {
                Assert.True(Present.Add(at), "plugged twice");
            }

            Note('+', offset, length);
            return !Full;
        }

        public void Unplug(ulong offset, ulong length)
        {
            for (ulong at = offset; at < offset + length; at += Block)
            {
                Assert.True(Present.Remove(at), "unplugged twice");
            }

            Note('-', offset, length);
        }

        public bool TryRestore(ReadOnlySpan<bool> plugged)
        {
            for (int i = 0; !Full && i < plugged.Length; i++)
            {
                Assert.True(!plugged[i] || Present.Add((ulong)i * Block), "restored over what is plugged");
            }

            return !Full;
        }

        private void Note(char sign, ulong offset, ulong length)
        {
            if (!Full)
            {
                Calls.Add($"{sign}{offset / Block}x{length / Block}");
            }
        }
    }
}
