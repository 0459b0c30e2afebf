using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage.Nbd;
using Vmm.Storage.NbdServing;
using Vmm.Storage.Tests.Nbd;

namespace Vmm.Storage.Tests.NbdServing;

/// <summary>Our NBD server: what it answers, what other clients say of it, who takes whose place, and when it ends.</summary>
public sealed class NbdServingTests
{
    private const int Size = 8 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Fact]
    public void Each_request_is_answered_as_the_protocol_has_it()
    {
        MemoryDiskBackend disk = new(Size);
        using OwnServer server = new(disk);
        using RawClient client = RawClient.Greeted(server.Socket);
        byte[] data = Random.Shared.GetItems<byte>([.. Enumerable.Range(0, 256).Select(i => (byte)i)], 100_000);
        client.Send([.. RawClient.Request(1, 11, offset: 4096, length: (uint)data.Length, flags: 1), .. data]);
        Assert.Equal((0u, 11ul), client.TakeReply());
        Assert.Equal(data, disk.Content.AsSpan(4096, data.Length).ToArray());
        client.Send(RawClient.Request(0, 12, offset: 4096, length: (uint)data.Length));
        Assert.Equal((0u, 12ul), client.TakeReply());
        Assert.Equal(data, client.Take(data.Length));
        client.Send(RawClient.Request(3, 13));
        Assert.Equal((0u, 13ul), client.TakeReply());
        client.Send(RawClient.Request(6, 14, offset: 4097, length: 3, flags: 2));
        Assert.Equal((0u, 14ul), client.TakeReply());
        Assert.Equal([data[0], 0, 0, 0, data[4]], disk.Content.AsSpan(4096, 5).ToArray());
        client.Send(RawClient.Request(4, 15, offset: 0, length: Size));
        Assert.Equal((0u, 15ul), client.TakeReply());
    }

    [Theory]
    [InlineData(0, 0, Size, 1, 0, 22)] // a read behind the end
    [InlineData(0, 0, ulong.MaxValue, 2, 0, 22)] // whose end overflows
    [InlineData(0, 0, 0, (4 << 20) + 1, 0, 22)] // longer than was said
    [InlineData(1, 100, Size - 99, 100, 0, 28)] // a write behind the end
    [InlineData(1, 5 << 20, 0, 5 << 20, 0, 22)] // longer than was said
    [InlineData(4, 0, Size, 1, 0, 28)]
    [InlineData(6, 0, Size - 1, 2, 0, 28)]
    [InlineData(6, 0, 0, 1, 16, 22)] // fast zeros were not offered
    [InlineData(0, 0, 0, 1, 4, 22)] // nor structured replies
    [InlineData(5, 0, 0, 1, 0, 22)] // nor caching
    [InlineData(7, 0, 0, 1, 0, 22)] // nor block status
    [InlineData(999, 0, 0, 0, 0, 22)] // nor anything of that number
    public void A_request_that_cannot_be_is_refused_and_the_next_one_is_served(
        int kind, int data, ulong offset, uint length, int flags, uint error)
    {
        using OwnServer server = new(new MemoryDiskBackend(Size));
        using RawClient client = RawClient.Greeted(server.Socket);
        client.Send([.. RawClient.Request((ushort)kind, 1, offset, length, (ushort)flags), .. new byte[data]]);
        Assert.Equal((error, 1ul), client.TakeReply());
        client.Send(RawClient.Request(0, 2, length: 1));
        Assert.Equal((0u, 2ul), client.TakeReply());
        Assert.Equal([0], client.Take(1));
    }

    [Fact]
    public void A_disk_that_is_read_only_refuses_what_writes()
    {
        using OwnServer server = new(new MemoryDiskBackend(Size, readOnly: true));
        using RawClient client = RawClient.Greeted(server.Socket);
        foreach (ushort kind in new ushort[] { 1, 4, 6 })
        {
            client.Send([.. RawClient.Request(kind, kind, length: 8), .. new byte[kind == 1 ? 8 : 0]]);
            Assert.Equal((1u, (ulong)kind), client.TakeReply());
        }

        client.Send(RawClient.Request(3, 9));
        Assert.Equal((0u, 9ul), client.TakeReply());
    }

    [Fact]
    public void Options_are_answered_and_what_is_none_ends_the_connection()
    {
        using OwnServer server = new(new MemoryDiskBackend(Size), new() { Export = "disk", Linger = TimeSpan.FromMinutes(5) });
        using (RawClient client = new(server.Socket))
        {
            client.Greet();
            client.SendOption(3, []);
            Assert.Equal([0, 0, 0, 4, .. "disk"u8], client.TakeOptionReply().Data);
            Assert.Equal((3u, 1u), client.TakeOptionReply() is var (option, kind, _) ? (option, kind) : default);
            foreach ((uint number, byte[] data, uint answer) in new (uint, byte[], uint)[]
            {
                (5, [], 0x8000_0001), (8, [], 0x8000_0001), (3, [1], 0x8000_0003), (7, [], 0x8000_0003),
                (7, [0, 0, 0, 9, 0, 0], 0x8000_0003),
                (7, [0, 0, 0, 0, 0, 2, 0, 3], 0x8000_0003), (7, [0, 0, 0, 1, (byte)'x', 0, 0], 0x8000_0006),
                (6, new byte[70_000], 0x8000_0009),
                (77, new byte[4000], 0x8000_0001),
            })
            {
                client.SendOption(number, data);
                Assert.Equal((number, answer), client.TakeOptionReply() is var (said, replied, _) ? (said, replied) : default);
            }

            client.SendOption(1, [.. "disk"u8]);
            Assert.Equal([0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0x6d], client.Take(10));
            client.Send(RawClient.Request(0, 1, length: 1));
            Assert.Equal((0u, 1ul), client.TakeReply());
        }

        foreach (Action<RawClient> what in new Action<RawClient>[]
        {
            c => c.Send([0, 0, 0, 4]), // flags that nobody knows
            c => c.Send([0, 0, 0, 0]), // before fixed newstyle
            c => c.Send([0, 0, 0, 3, .. "HTTP/1.1 200 OK\r\n"u8]),
            c => c.Send([0, 0, 0, 3, .. "IHAVENOT"u8, 0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0]), // with data behind
        })
        {
            using RawClient client = new(server.Socket);
            _ = client.Take(18);
            what(client);
            client.AwaitEnd();
        }

        using RawClient endless = new(server.Socket);
        endless.Greet();
        for (int i = 0; i < 64; i++)
        {
            endless.SendOption(3, [9]);
            _ = endless.TakeOptionReply();
        }

        endless.SendOption(3, [9]);
        endless.AwaitEnd();
    }

    [Fact]
    public void A_client_that_reads_no_replies_is_read_no_requests()
    {
        using OwnServer server = new(new MemoryDiskBackend(Size));
        using RawClient client = RawClient.Greeted(server.Socket);
        byte[] many = [.. Enumerable.Range(0, 1000).SelectMany(i => RawClient.Request(0, (ulong)i, length: 1 << 20))];
        int sent = client.SendWhatFits(many);
        while (sent < many.Length)
        {
            int more = client.SendWhatFits(many[sent..]);
            sent += more;
            if (more == 0)
            {
                break; // full
            }
        }

        int whole = sent / 28;
        Assert.InRange(whole, 17, 1000); // more than there is memory for
        for (int i = 0; i < whole; i++)
        {
            Assert.Equal((0u, (ulong)i), client.TakeReply());
            _ = client.Take(1 << 20);
        }
    }

    [Fact]
    public async Task A_client_takes_the_place_of_another_when_the_disk_is_through_with_that_ones_requests()
    {
        SlowDisk disk = new(Size);
        using OwnServer server = new(disk);
        using RawClient first = RawClient.Greeted(server.Socket);
        first.Send([.. RawClient.Request(1, 1, length: 512), .. Enumerable.Repeat((byte)1, 512)]);
        await disk.Reached.Task.WaitAsync(s_patience);
        using RawClient second = new(server.Socket);
        first.AwaitEnd();
        Task greeted = Task.Run(() => second.Greet());
        Assert.NotSame(greeted, await Task.WhenAny(greeted, Task.Delay(300))); // what the first one began is still going on
        disk.LetGo();
        await greeted.WaitAsync(s_patience);
        Assert.Equal(1, disk.Memory.Content[0]); // and it was done, although nobody heard of it
    }

    [Fact]
    public async Task It_ends_with_a_goodbye_or_without_clients_and_leaves_a_disk_that_does_not_answer()
    {
        using (OwnServer polite = new(new MemoryDiskBackend(Size)))
        {
            using RawClient client = RawClient.Greeted(polite.Socket);
            client.Send(RawClient.Request(2, 1));
            Assert.Equal(NbdServerEnd.Goodbye, await polite.End.WaitAsync(s_patience));
        }

        using (OwnServer lost = new(new MemoryDiskBackend(Size), new() { Linger = TimeSpan.FromMilliseconds(1) }))
        {
            RawClient.Greeted(lost.Socket).Dispose();
            Assert.Equal(NbdServerEnd.NoClient, await lost.End.WaitAsync(s_patience));
        }

        using (OwnServer alone = new(new MemoryDiskBackend(Size), new() { FirstClient = TimeSpan.FromMilliseconds(1) }))
        {
            Assert.Equal(NbdServerEnd.NoClient, await alone.End.WaitAsync(s_patience));
        }

        SlowDisk disk = new(Size);
        using OwnServer stuck = new(disk, new() { Stuck = TimeSpan.FromMilliseconds(1) });
        using (RawClient client = RawClient.Greeted(stuck.Socket))
        {
            client.Send(RawClient.Request(3, 1));
            await disk.Reached.Task.WaitAsync(s_patience);
        }

        Assert.Equal(NbdServerEnd.Stuck, await stuck.End.WaitAsync(s_patience));
    }

    [Fact]
    public async Task Without_its_disk_it_answers_nothing_more()
    {
        SlowDisk disk = new(Size);
        using OwnServer server = new(disk);
        disk.Lost = server.Server.Abort;
        using RawClient client = RawClient.Greeted(server.Socket);
        client.Send(RawClient.Request(3, 1));
        await disk.Reached.Task.WaitAsync(s_patience);
        disk.LetGo();
        client.AwaitEnd();
        Assert.Equal(NbdServerEnd.Lost, await server.End.WaitAsync(s_patience));
    }

    [NbdFact]
    public void Requests_of_a_lost_connection_are_repeated_after_it_and_none_is_lost()
    {
        MemoryDiskBackend memory = new(Size);
        using OwnServer server = new(memory);
        using NbdBackend disk = server.Open(new NbdOptions { Name = "own", KeepsUnflushed = true });
        using DiskDriver driver = new(disk);
        byte[] block = new byte[4096];
        for (int i = 0; i < 200; i++)
        {
            block.AsSpan().Fill((byte)i);
            if (i % 10 == 3)
            {
                server.Connect().Dispose(); // it takes the disk's place, and goes
            }

            Assert.Equal(DiskStatus.Ok, driver.Write((ulong)i * 4096, block));
        }

        for (int i = 0; i < 200; i++)
        {
            Assert.Equal((byte)i, memory.Content[i * 4096]);
        }
    }

    [JudgeFact("qemu-io")]
    public void Qemu_writes_and_reads_it()
    {
        MemoryDiskBackend memory = new(Size);
        using OwnServer server = new(memory);
        string uri = $"nbd+unix:///?socket={server.Socket}";
        string said = Run("qemu-io", "-f", "raw", "-c", "write -P 7 1M 3M", "-c", "write -z 2M 64k", "-c", "write -P 9 -f 513 1000",
            "-c", "discard 5M 1M", "-c", "flush", "-c", "read -P 7 1M 1M", "-c", "read -P 0 2M 64k", "-c", "read -P 9 513 1000", uri);
        Assert.DoesNotContain("verification failed", said, StringComparison.Ordinal);
        Assert.Equal((7, 0, 9), (memory.Content[1 << 20], memory.Content[2 << 20], memory.Content[513]));
    }

    [JudgeFact("nbdinfo")]
    public void Libnbd_finds_what_it_was_told()
    {
        using OwnServer server = new(new MemoryDiskBackend(Size), new() { Export = "disk", Linger = TimeSpan.FromMinutes(5) });
        string said = Run("nbdinfo", "--json", $"nbd+unix:///disk?socket={server.Socket}");
        Assert.Contains($"\"export-size\": {Size}", said, StringComparison.Ordinal);
        Assert.Contains("\"can_zero\": true", said, StringComparison.Ordinal);
        Assert.Contains("\"block_size_maximum\": 4194304", said, StringComparison.Ordinal);
    }

    internal static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string said = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program}: {said}{errors.Result}");
        return said;
    }

    /// <summary>A disk whose first request stays until it is let go; then it goes to memory.</summary>
    private sealed class SlowDisk(int size) : IDiskBackend
    {
        private Action? _letGo;

        public MemoryDiskBackend Memory { get; } = new(size);

        public TaskCompletionSource Reached { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Action? Lost { get; set; }

        public BlockGeometry Geometry => Memory.Geometry;

        public IBlockNode CreateNode(IoLoop loop, int depth) => new Node(this, Memory.CreateNode(loop, depth), loop);

        public void LetGo() => _letGo!();

        public void Dispose() => Memory.Dispose();

        private sealed class Node(SlowDisk disk, IBlockNode memory, IoLoop loop) : IBlockNode
        {
            private BlockRequest? _held;
            private bool _isOpen;

            public BlockGeometry Geometry => memory.Geometry;

            public int InFlight => memory.InFlight;

            public bool WritesZeroesAsData(bool mayUnmap) => true;

            public void Submit(BlockRequest request)
            {
                if (_isOpen)
                {
                    memory.Submit(request);
                    return;
                }

                _held = request;
                disk._letGo = () => loop.Post(() =>
                {
                    _isOpen = true;
                    disk.Lost?.Invoke();
                    memory.Submit(_held);
                });
                disk.Reached.TrySetResult();
            }

            public ValueTask FlushAndCloseAsync() => memory.FlushAndCloseAsync();

            public void Dispose() => memory.Dispose();
        }
    }
}

/// <summary>A test with another program as the judge; skipped, with the reason, where it is missing.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class JudgeFactAttribute : FactAttribute
{
    public JudgeFactAttribute(string program) =>
        Skip = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(Path.Combine(folder, program)))
            ? null : $"{program} is not installed (deploy/dev-setup)";
}
