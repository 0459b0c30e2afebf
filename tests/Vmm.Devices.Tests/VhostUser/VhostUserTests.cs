using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Fs;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;
using Vmm.Devices.Tests.Virtio;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>The front end of vhost-user and the device before it, with a back end that only takes notes, lies, or dies.</summary>
public sealed class VhostUserTests
{
    private const ulong Displacement = 1UL << 46, RingBits = (1UL << 28) | (1UL << 29) | (1UL << 32);
    private const int NotConnected = -107;

    private static readonly VhostUserLinkOptions s_quick = new()
    {
        Name = "fs0",
        Of = "the folder",
        Patience = TimeSpan.FromSeconds(20),
        StopPatience = TimeSpan.FromSeconds(20),
        Pause = TimeSpan.FromMilliseconds(10),
    };

    [Fact]
    public void A_driver_that_is_ready_gets_its_rings_handed_over_with_their_bells_and_a_reset_takes_them_back()
    {
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(s_quick);
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            Assert.Equal(
                [3u, 1, 15, 16, 17, 2, 5, 8, 10, 9, 14, 13, 12, 18, 8, 10, 9, 14, 13, 12, 18], end.Calls.Select(c => c.Request));
            Assert.Equal(0x9u, Number(end.Wait(FakeBackEnd.SetProtocol))); // several queues, acknowledged requests, and nothing else
            Assert.Equal(RingBits | (1UL << 30), Number(end.Wait(2)));
            VhostUserCall memory = end.Wait(FakeBackEnd.SetMemory);
            Assert.Equal([1, 0, (ulong)QueueGuest.RamBytes, Displacement, 0], Numbers(memory));
            Assert.Single(memory.Files);
            ulong at = QueueGuest.Table(1) + Displacement;
            Assert.Equal([1, at, at + 0x2000, at + 0x1000, 0], Numbers(end.Wait(9, ring: 1)));
            using Bell call = BellOf(end.Wait(FakeBackEnd.SetCall, ring: 1)), kick = BellOf(end.Wait(FakeBackEnd.SetKick, ring: 1));
            Assert.True(kick.TryTake()); // so that it looks at what was there before
            call.Signal();
            guest.Wait(() => guest.LastSignalled == 1, "no interrupt");
            guest.Kick(1);
            Assert.True(kick.TryTake()); // the guest's own bell
            end.Next[1] = 7;
            device.Reset();
            Assert.Equal(2, end.Calls.Count(c => c.Request == FakeBackEnd.GetBase));
            Assert.True(device.IsConnected); // for the next driver
            guest.Activate();
            end.Wait(FakeBackEnd.Enable, ring: 1, count: 2);
            Assert.Equal(0UL, Number(end.Wait(FakeBackEnd.SetBase, ring: 1, count: 2)) >> 32);
        }
    }

    [Fact]
    public void Held_its_rings_are_here_and_it_goes_on_where_the_back_end_stopped()
    {
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(s_quick);
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            end.Next[1] = 9;
            Assert.True(device.TryHold(TimeSpan.FromSeconds(20)));
            int before = end.Calls.Length;
            device.Resume();
            end.Wait(FakeBackEnd.Enable, ring: 1, count: 2);
            Assert.Equal(9UL, Number(end.Calls.Skip(before).First(c => c.Request == FakeBackEnd.SetBase && c.Payload[0] == 1)) >> 32);
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_a_back_end_that_died_had_not_answered_fails_and_so_does_the_rest_until_the_guest_begins_anew(bool mountsFirst)
    {
        FakeBackEnd? next = null;
        using ManualResetEventSlim mayCome = new();
        List<string> notes = [];
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(s_quick with
        {
            Note = notes.Add,
            Connect = cancel =>
            {
                mayCome.Wait(cancel);
                (next, FileDescriptorHandle stream) = FakeBackEnd.Create();
                return Task.FromResult(stream);
            },
        });
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            guest.PutUsed(1, 0, Ask(guest, 3, 100)); // one that it answered
            guest.WaitUsed(1);
            guest.Wait(() => device.Requests == 1, "what it completed is not counted");
            uint second = Ask(guest, 15, 101), third = Ask(guest, 15, 102);
            end.Dispose();
            foreach ((uint head, ulong unique) in new[] { (second, 101UL), (third, 102UL) })
            {
                AssertFailed(guest, head, unique);
            }

            Assert.False(device.IsConnected);
            Write(guest, 40, 2, 104, 1); // FUSE_FORGET has no answer
            guest.Post(0, (At(104), 40, false));
            Assert.Equal(0u, guest.WaitUsed(0).Written);
            AssertFailed(guest, Ask(guest, 3, 105), 105); // it has forgotten everything
            if (mountsFirst)
            {
                Ask(guest, 26, 106); // FUSE_INIT waits for the next
                Thread.Sleep(50);
                Assert.False(guest.TryTakeUsed(1, out _, out _));
            }

            mayCome.Set();
            Assert.True(SpinWait.SpinUntil(() => device.IsConnected, 20_000));
            if (!mountsFirst)
            {
                AssertFailed(guest, Ask(guest, 3, 107), 107);
                Ask(guest, 26, 106);
            }

            next!.Wait(FakeBackEnd.Enable, ring: 1);
            Assert.Equal(mountsFirst ? 4UL : 5UL, Number(next.Wait(FakeBackEnd.SetBase, ring: 1)) >> 32); // at the FUSE_INIT
            Assert.Equal(1UL, Number(next.Wait(FakeBackEnd.SetBase, ring: 0)) >> 32);
            Assert.Equal(1, device.Losses);
            Assert.Equal(["fs0: the folder is lost: it ended", "fs0: the folder is back"], notes);
            Assert.Null(guest.NeedsReset);
        }

        next!.Dispose();
    }

    [Fact]
    public void A_back_end_that_hangs_has_the_rings_until_it_is_dead()
    {
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(s_quick with { StopPatience = TimeSpan.FromMilliseconds(300) });
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            end.Answer = request => request == FakeBackEnd.GetBase ? [] : null;
            uint head = Ask(guest, 3, 100);
            Assert.False(device.TryHold(TimeSpan.FromSeconds(1)));
            Assert.False(device.IsConnected); // another may be looked for
            Assert.False(guest.TryTakeUsed(1, out _, out _)); // it could answer still
            end.Dispose();
            Assert.True(device.TryHold(TimeSpan.FromSeconds(20)));
            Assert.False(guest.TryTakeUsed(1, out _, out _));
            device.Resume();
            AssertFailed(guest, head, 100);
        }
    }

    [Fact]
    public void A_back_end_that_speaks_unasked_is_told_to_end()
    {
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(s_quick);
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            end.Say([1, 2, 3]);
            Assert.True(SpinWait.SpinUntil(() => !device.IsConnected, 20_000));
            end.Dispose(); // as a program does that hears goodbye
            AssertFailed(guest, Ask(guest, 3, 100), 100);
        }
    }

    [Fact]
    public void Requests_whose_end_is_not_known_need_a_reset()
    {
        (FakeBackEnd end, VirtioFs _, QueueGuest guest) = Start(s_quick);
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            ushort head = (ushort)Ask(guest, 3, 100);
            guest.MakeAvailable(1, head); // out of order: the same chain twice without an answer
            end.Dispose();
            Assert.Contains("not known", guest.WaitNeedsReset(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_ring_that_the_back_end_cannot_make_sense_of_needs_a_reset()
    {
        (FakeBackEnd end, VirtioFs _, QueueGuest guest) = Start(s_quick);
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            using Bell error = BellOf(end.Wait(FakeBackEnd.SetError));
            error.Signal();
            Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Another_interrupt_of_a_ring_goes_to_the_back_end_and_no_ring_is_lost()
    {
        using EventFd first = new(), second = new();
        EventFd?[] triggers = [null, first];
        (FakeBackEnd end, VirtioFs _, QueueGuest guest) = Start(s_quick, triggers);
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            guest.Triggers[1] = second;
            guest.QueueTriggerChanged!(1);
            using Bell call = BellOf(end.Wait(FakeBackEnd.SetCall, ring: 1, count: 2));
            call.Signal();
            Assert.True(second.TryTake(out _));
            guest.Wait(() => guest.LastSignalled == 1, "what was rung meanwhile is lost");
        }
    }

    [Fact]
    public void Memory_that_comes_and_goes_is_in_the_table_before_its_driver_may_use_it()
    {
        (FakeBackEnd end, VirtioFs _, QueueGuest guest) = Start(s_quick, hot: true);
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable, ring: 1);
            MemoryMapOwner map = new(guest.Memory.Ram, new NoSlots());
            nint host = guest.Memory.Regions[0].HostAddress;
            map.AddRamSlot(new GuestRegion(new(1UL << 32), new ByteSize(16UL << 20), host));
            map.AddRam(new GuestRegion(new(1UL << 32), new ByteSize(2UL << 20), host));
            AssertShown(pieces: 2);
            map.AddRam(new GuestRegion(new((1UL << 32) + (8UL << 20)), new ByteSize(2UL << 20), host + (8 << 20)));
            Assert.Equal(2, end.Calls.Count(c => c.Request == FakeBackEnd.SetMemory)); // more of a piece that it has
            map.RemoveRam(new((1UL << 32) + (8UL << 20)), new ByteSize(2UL << 20));
            map.RemoveRam(new(1UL << 32), new ByteSize(2UL << 20));
            AssertShown(pieces: 1);
        }

        void AssertShown(ulong pieces)
        {
            VhostUserCall[] calls = end.Calls;
            int table = Array.FindLastIndex(calls, c => c.Request == FakeBackEnd.SetMemory);
            Assert.Equal(pieces, Numbers(calls[table])[0]);
            Assert.True(Array.FindLastIndex(calls, c => c.Request == FakeBackEnd.GetBase) < table); // no ring was served meanwhile
            Assert.True(Array.FindLastIndex(calls, c => c.Request == FakeBackEnd.Enable) > table);
        }
    }

    [Theory]
    [InlineData(1u, 2u, 5u, 8u, "answers request 2")]
    [InlineData(1u, 1u, 6u, 8u, "version 2")]
    [InlineData(1u, 1u, 1u, 8u, "without the mark")]
    [InlineData(1u, 1u, 5u, 0xFFFF_FFFFu, "4294967295 bytes")]
    [InlineData(15u, 15u, 5u, 0u, "0 bytes")]
    [InlineData(17u, 17u, 5u, 8u, "serves 1 rings")]
    public void What_a_back_end_answers_is_checked(uint request, uint answered, uint flags, uint length, string problem)
    {
        VhostUserException error = Assert.Throws<VhostUserException>(() => FakeBackEnd.Connect(
            s_quick, end => end.Answer = r => r == request ? FakeBackEnd.Reply(answered, 1, flags, length) : null));
        Assert.Contains(problem, error.Message, StringComparison.Ordinal);
        Assert.StartsWith("fs0: the folder: ", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_back_end_that_lacks_a_feature_is_silent_or_refuses_is_told()
    {
        Assert.Contains("lacks features", Refusal(s_quick, end => end.Features = 0), StringComparison.Ordinal);
        Assert.Contains("does not answer GetFeatures within 0.3 s",
            Refusal(s_quick with { Patience = TimeSpan.FromMilliseconds(300) }, end => end.Answer = _ => []), StringComparison.Ordinal);

        static string Refusal(VhostUserLinkOptions options, Action<FakeBackEnd> prepare) =>
            Assert.Throws<VhostUserException>(() => FakeBackEnd.Connect(options, prepare)).Message;
    }

    [Fact]
    public void A_back_end_that_refuses_a_ring_is_lost_and_the_guest_is_answered()
    {
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(
            s_quick, prepare: end => end.Answer = r => r == FakeBackEnd.SetKick ? FakeBackEnd.Reply(r, 1) : null);
        using (guest)
        {
            end.Wait(FakeBackEnd.SetKick);
            Assert.True(SpinWait.SpinUntil(() => !device.IsConnected, 20_000));
            end.Dispose();
            AssertFailed(guest, Ask(guest, 3, 100), 100);
        }
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Any_answer_is_taken_or_refused_in_time()
    {
        int rounds = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int wanted)
            ? Math.Min(wanted, 20_000) : 300;
        VhostUserLinkOptions options = s_quick with { Patience = TimeSpan.FromMilliseconds(5) };
        for (int seed = 0; seed < rounds; seed++)
        {
            Random random = new(seed);
            try
            {
                (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(options, end => end.Answer = request =>
                {
                    byte[] answer = FakeBackEnd.Reply(request, (ulong)random.NextInt64());
                    for (int i = random.Next(3); i > 0; i--)
                    {
                        answer[random.Next(answer.Length)] = (byte)random.Next(256);
                    }

                    return random.Next(8) == 0 ? answer[..random.Next(answer.Length)] : answer;
                });
                link.Dispose();
                end.Dispose();
            }
            catch (VhostUserException)
            {
                // refused
            }
        }
    }

    [Fact]
    public void The_driver_reads_tag_and_number_of_queues_and_no_state_can_be_saved()
    {
        (FakeBackEnd end, VirtioFs device, QueueGuest guest) = Start(s_quick);
        using (end)
        using (guest)
        {
            byte[] config = new byte[44];
            device.ReadConfig(0, config);
            Assert.Equal([.. "shared"u8.ToArray(), .. new byte[30], 1, 0, 0, 0, 0, 0, 0, 0], config);
            device.ReadConfig(36, config.AsSpan(0, 4));
            Assert.Equal(1, config[0]);
            device.ReadConfig(int.MaxValue, config);
            Assert.All(config, b => Assert.Equal(0, b));
            Assert.Equal((ushort)26, device.DeviceType);
            Assert.Contains("shared folder shared", Assert.Throws<StateException>(device.ThrowIfSaved).Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("1234567890123456789012345678901234567")]
    [InlineData("ääääääääääääääääääää")]
    public void A_tag_that_does_not_fit_is_refused_and_the_connection_closed(string tag)
    {
        (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(s_quick);
        using (end)
        {
            Assert.Throws<ArgumentException>(() => new VirtioFs("fs0", tag, link, []));
            Assert.False(link.IsConnected && end.Calls.Length == 0);
        }
    }

    private static (FakeBackEnd End, VirtioFs Device, QueueGuest Guest) Start(
        VhostUserLinkOptions options, EventFd?[]? triggers = null, bool hot = false, Action<FakeBackEnd>? prepare = null)
    {
        (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(options, prepare);
        List<MemoryExtent> memory = [];
        VirtioFs device = new("fs0", "shared", link, memory);
        QueueGuest guest = new(device, activate: false) { Triggers = triggers ?? [] };
        FileDescriptorHandle file = MemoryFile.Create("ram", [1]);
        memory.Add(new MemoryExtent(new(0), new ByteSize((ulong)QueueGuest.RamBytes), file, 0));
        if (hot)
        {
            memory.Add(new MemoryExtent(new(1UL << 32), new ByteSize(1UL << 30), file, 0));
        }

        guest.Activate(RingBits);
        return (end, device, guest);
    }

    private static ulong At(ulong unique) => QueueGuest.Data + (unique * 0x100);

    private static void Write(QueueGuest guest, uint length, uint opcode, ulong unique, ulong node)
    {
        Span<byte> header = guest.Ram(At(unique), 0x100);
        header.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(header, length);
        BinaryPrimitives.WriteUInt32LittleEndian(header[4..], opcode);
        BinaryPrimitives.WriteUInt64LittleEndian(header[8..], unique);
        BinaryPrimitives.WriteUInt64LittleEndian(header[16..], node);
    }

    private static uint Ask(QueueGuest guest, uint opcode, ulong unique)
    {
        Write(guest, 40, opcode, unique, 1);
        return guest.Post(1, (At(unique), 40, false), (At(unique) + 0x40, 0x80, true));
    }

    private static void AssertFailed(QueueGuest guest, uint head, ulong unique)
    {
        Assert.Equal((head, 16u), guest.WaitUsed(1));
        Span<byte> answer = guest.Ram(At(unique) + 0x40, 16);
        Assert.Equal((16u, NotConnected, unique), (BinaryPrimitives.ReadUInt32LittleEndian(answer),
            BinaryPrimitives.ReadInt32LittleEndian(answer[4..]), BinaryPrimitives.ReadUInt64LittleEndian(answer[8..])));
    }

    private static Bell BellOf(VhostUserCall call) => new(Assert.Single(call.Files));

    private static ulong Number(VhostUserCall call) => BinaryPrimitives.ReadUInt64LittleEndian(call.Payload);

    private static ulong[] Numbers(VhostUserCall call) =>
        [.. call.Payload.Chunk(8).Select(chunk => BinaryPrimitives.ReadUInt64LittleEndian(chunk))];

    /// <summary>An eventfd that came by a message.</summary>
    private sealed class Bell(FileDescriptorHandle passed) : IDisposable
    {
        private readonly SafeFileHandle _file = new(passed.Number, ownsHandle: false);

        public void Signal() => RandomAccess.Write(_file, BitConverter.GetBytes(1UL), 0);

        public bool TryTake()
        {
            try
            {
                return RandomAccess.Read(_file, new byte[8], 0) == 8;
            }
            catch (IOException)
            {
                return false; // EAGAIN
            }
        }

        public void Dispose() => _file.Dispose();
    }
}
