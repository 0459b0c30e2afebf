using System.Diagnostics;
using Vmm.Storage.Nbd;

namespace Vmm.Storage.Tests.Nbd;

/// <summary>
/// Servers that lie: each ends in an error, and never in a crash, a hang or memory without bounds. Those that break a connection are tried
/// again, until the deadline is over.
/// </summary>
[Collection(Vmm.Storage.Tests.Qcow2Tools.Scratch.Alone)] // the memory of the process is watched
public sealed class LyingServerTests
{
    private const long MostMemory = 64 << 20;

    private static readonly Dictionary<string, Func<Stream, NbdAsk, bool>> s_answers = new()
    {
        ["closes at a command"] = (_, _) => false,
        ["never answers"] = (_, _) => true,
        ["a cookie that nobody has"] = (s, a) => LyingServer.Simple(s, a.Cookie + 77, 0, a.Length),
        ["a magic number of its own"] = (s, a) => LyingServer.Simple(s, a.Cookie, 0, a.Length, magic: 0x12345678),
        ["an unknown error"] = (s, a) => LyingServer.Structured(s, a.Cookie, 1, 0x8001, [.. LyingServer.Big(0xdeadu), 0, 0]),
        ["half of the data, then the end"] = (s, a) => !LyingServer.Simple(s, a.Cookie, 0, a.Length / 2),
        ["half of the data, then silence"] = (s, a) => LyingServer.Simple(s, a.Cookie, 0, a.Length / 2),
        ["done without data"] = (s, a) => LyingServer.Structured(s, a.Cookie, 1, 0, []),
        ["half of the data in chunks"] = (s, a) =>
            LyingServer.Structured(s, a.Cookie, 1, 1, [.. LyingServer.Big(a.Offset), .. new byte[a.Length / 2]]),
        ["data outside of what was asked for"] = (s, a) =>
            LyingServer.Structured(s, a.Cookie, 1, 1, [.. LyingServer.Big(a.Offset + (1 << 30)), .. new byte[512]]),
        ["data before what was asked for"] = (s, a) =>
            LyingServer.Structured(s, a.Cookie, 1, 1, [.. LyingServer.Big(a.Offset - 512), .. new byte[1024]]),
        ["a hole beyond the end"] = (s, a) =>
            LyingServer.Structured(s, a.Cookie, 1, 2, [.. LyingServer.Big(a.Offset), .. LyingServer.Big(uint.MaxValue)]),
        ["a chunk of four gigabytes"] = (s, a) => LyingServer.Structured(s, a.Cookie, 1, 1, new byte[4096], claims: uint.MaxValue),
        ["a chunk too short for its kind"] = (s, a) => LyingServer.Structured(s, a.Cookie, 1, 1, [1, 2, 3]),
        ["an error with a long text"] = (s, a) =>
            LyingServer.Structured(s, a.Cookie, 1, 0x8001, [.. LyingServer.Big(5u), 0xff, 0xff, .. new byte[100]]),
        ["a chunk of no known kind"] = (s, a) => LyingServer.Structured(s, a.Cookie, 1, 999, new byte[8]),
        ["block status that nobody asked for"] = (s, a) => LyingServer.Structured(s, a.Cookie, 1, 5, new byte[12]),
        ["it shuts down"] = (s, a) => LyingServer.Simple(s, a.Cookie, 108, 0),
    };

    private static readonly Dictionary<string, Func<Stream, bool>> s_greetings = new()
    {
        ["silence"] = s => s.ReadByte() > 300,
        ["the end"] = _ => false,
        ["another protocol"] = s => Says(s, "HTTP/1.1 400 Bad Request\r\n\r\n"u8.ToArray()),
        ["half a greeting"] = s => Says(s, "NBDMAGIC"u8.ToArray()),
        ["an old server of a disk without end"] =
            s => Says(s, [.. "NBDMAGIC"u8, .. LyingServer.Big(0x420281861253), .. LyingServer.Big(ulong.MaxValue), .. new byte[128]]),
        ["options of two gigabytes"] = s =>
        {
            s.Write([.. "NBDMAGICIHAVEOPT"u8, 0, 3]);
            LyingServer.Option(s, 8, 1, new byte[64], claims: int.MaxValue);
            return Says(s, new byte[1 << 20]);
        },
        ["options without end"] = s =>
        {
            s.Write([.. "NBDMAGICIHAVEOPT"u8, 0, 3]);
            LyingServer.Option(s, 8, 1, []);
            for (int i = 0; i < 1_000_000; i++)
            {
                LyingServer.Option(s, 7, 3, [0, 9, .. new byte[500]]);
            }

            return false;
        },
    };

    public static TheoryData<string> Lies => [.. s_answers.Keys];

    public static TheoryData<string> Greetings => [.. s_greetings.Keys];

    [NbdTheory]
    [MemberData(nameof(Lies))]
    public void An_answer_that_lies_is_an_error_of_the_request_and_never_its_data(string lie)
    {
        using LyingServer server = new() { Answers = s_answers[lie] };
        Bounded(() =>
        {
            using NbdBackend disk = Open(Impatient(), server);
            using DiskDriver driver = new(disk);
            Assert.Equal(DiskStatus.IoError, driver.Read(4096, new byte[4096]));
        });
    }

    [NbdTheory]
    [MemberData(nameof(Greetings))]
    public void A_server_that_does_not_greet_as_it_should_is_refused(string greeting)
    {
        using LyingServer server = new() { Greets = s_greetings[greeting] };
        Bounded(() =>
        {
            BlockException refused = Assert.Throws<BlockException>(() => NbdBackend.Open(Impatient(), NbdDialer.Unix(server.Path)));
            Assert.StartsWith("disk liar: ", refused.Message, StringComparison.Ordinal);
        });
    }

    [NbdTheory]
    [InlineData(0UL, 0u, 0u, 0u)]
    [InlineData(513UL, 0u, 0u, 0u)]
    [InlineData(ulong.MaxValue - 511, 0u, 0u, 0u)]
    [InlineData(1UL << 63, 0u, 0u, 0u)]
    [InlineData((1UL << 20) + 512, 4096u, 4096u, 1u << 20)]
    [InlineData(1UL << 20, 512u, 512u, 32u << 10)]
    public void A_size_or_blocks_that_no_disk_has_are_refused(ulong size, uint least, uint best, uint most)
    {
        using LyingServer server = new() { Size = size, Blocks = least == 0 ? null : (least, best, most) };
        Bounded(() => Assert.Throws<BlockException>(() => NbdBackend.Open(Impatient(), NbdDialer.Unix(server.Path))));
    }

    /// <summary>
    /// Blocks that the protocol forbids (a minimum above 64 KiB, or that is no power of two) never come to the disk: libnbd takes the
    /// server for one that tells nothing.
    /// </summary>
    [NbdTheory]
    [InlineData(1u << 20, 1u << 20, 1u << 20)]
    [InlineData(3000u, 4096u, 1u << 20)]
    public void Blocks_that_the_protocol_forbids_are_as_if_nothing_was_said(uint least, uint best, uint most)
    {
        using LyingServer server = new() { Blocks = (least, best, most) };
        Bounded(() =>
        {
            using NbdBackend disk = Open(Impatient(), server);
            Assert.Equal(512, disk.Geometry.LogicalBlockSize);
        });
    }

    /// <summary>One request that ends every connection does not keep the disk from others for ever, nor is it tried for ever.</summary>
    [NbdTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_request_that_ends_every_connection_fails_in_the_end_also_when_others_are_answered(bool answersOthers)
    {
        using LyingServer server = new()
        {
            Answers = (s, a) => a.Offset != 4096 && answersOthers && LyingServer.Simple(s, a.Cookie, 0, a.Type == 0 ? a.Length : 0),
        };
        Bounded(() =>
        {
            using NbdBackend disk = Open(
                Impatient() with { Reconnect = TimeSpan.FromSeconds(answersOthers ? 3600 : 2),
                    Timeout = TimeSpan.FromSeconds(30) }, server);
            using DiskDriver driver = new(disk), other = new(disk);
            driver[1].Prepare(BlockKind.WriteZeroes, 4096, 4096);
            driver.Node.Submit(driver[1]);
            while (driver[1].State != BlockState.Done)
            {
                driver.Loop.Poll();
                _ = answersOthers ? other.Read(0, new byte[512]) : DiskStatus.Ok;
            }

            Assert.Equal(DiskStatus.IoError, driver.Status(1));
        });
    }

    /// <summary>Bytes without sense, after an honest handshake or in place of it, by a seed.</summary>
    [NbdTheory]
    [InlineData(false)]
    [InlineData(true)]
    [Trait("Kind", "fuzz")]
    public void Random_frames_end_in_errors(bool greets)
    {
        int count = int.Parse(Environment.GetEnvironmentVariable("VMM_NBD_FRAMES") ?? "40", null);
        Bounded(() =>
        {
            for (int seed = 0; seed < count; seed++)
            {
                Random random = new(seed);
                using LyingServer server = new()
                {
                    Greets = greets ? null : stream => Babble(stream, random, "NBDMAGICIHAVEOPT\0\u0003"u8.ToArray()),
                    Answers = (stream, ask) => Babble(stream, random,
                        [.. LyingServer.Big(random.Next(2) == 0 ? 0x67446698u : 0x668e33efu), .. LyingServer.Big((uint)random.Next(70000)),
                            .. LyingServer.Big(ask.Cookie), .. LyingServer.Big((uint)random.Next(9000)), .. LyingServer.Big(ask.Offset)]),
                };
                NbdOptions options = Impatient() with
                {
                    Timeout = TimeSpan.FromMilliseconds(200),
                    Reconnect = TimeSpan.FromMilliseconds(100),
                };
                try
                {
                    using NbdBackend disk = NbdBackend.Open(options, NbdDialer.Unix(server.Path));
                    using DiskDriver driver = new(disk);
                    _ = driver.Read(8192, new byte[4096]);
                    _ = driver.Write(8192, new byte[4096]);
                }
                catch (BlockException)
                {
                    // refused
                }
            }
        });
    }

    // The honest handshake comes first. A machine that is too busy for it within the test's short time is asked again with a longer one.
    private static NbdBackend Open(NbdOptions options, LyingServer server)
    {
        while (true)
        {
            try
            {
                return NbdBackend.Open(options, NbdDialer.Unix(server.Path));
            }
            catch (BlockException slow) when (slow.Message.Contains("does not answer within", StringComparison.Ordinal)
                && options.Timeout < TimeSpan.FromMinutes(1))
            {
                options = options with { Timeout = options.Timeout * 4 };
            }
        }
    }

    private static NbdOptions Impatient() =>
        new() { Name = "liar", Timeout = TimeSpan.FromSeconds(1), Reconnect = TimeSpan.FromMilliseconds(500) };

    private static bool Says(Stream stream, byte[] bytes)
    {
        stream.Write(bytes);
        return stream.ReadByte() > 300;
    }

    // A beginning that makes sense, with some bytes changed, and then noise.
    private static bool Babble(Stream stream, Random random, byte[] beginning)
    {
        byte[] noise = new byte[random.Next(3) == 0 ? random.Next(1, 100_000) : random.Next(0, 64)];
        random.NextBytes(noise);
        for (int changes = random.Next(3); changes > 0; changes--)
        {
            beginning[random.Next(beginning.Length)] = (byte)random.Next(256);
        }

        stream.Write([.. beginning, .. noise]);
        return random.Next(2) == 0;
    }

    // What hangs is not waited for, and what grows is seen.
    private static void Bounded(Action action)
    {
        using Process self = Process.GetCurrentProcess();
        long before = self.WorkingSet64;
        Task run = Task.Run(action);
        Assert.True(Task.WaitAny([run], TimeSpan.FromMinutes(4)) == 0, "it hangs");
        run.GetAwaiter().GetResult();
        self.Refresh();
        Assert.InRange(self.WorkingSet64 - before, long.MinValue, MostMemory);
    }
}
