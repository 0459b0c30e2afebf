using System.Text;
using Tmds.Linux;

namespace Vmm.Interop.Tests;

/// <summary>Taps in a network namespace of one thread: nothing of the host is touched, and all is gone with the thread.</summary>
public sealed class TapTests
{
    private const int Tap = 2, MultiQueue = 0x100, NoPacketInformation = 0x1000, FrameHeader = 0x4000;
    private const int SetInterface = 0x400454ca, SetPersist = 0x400454cb;


    [TapFact]
    public void A_tap_is_opened_by_name_checked_and_configured()
    {
        InNamespace(() =>
        {
            Assert.Contains("does not exist", Refusal("vmmtap0", multiQueue: false), StringComparison.Ordinal);
            Assert.Contains("does not exist", Refusal("vmmtap0", multiQueue: false), StringComparison.Ordinal); // and none was made
            Assert.Contains("too long", Refusal("a-name-that-is-too-long", multiQueue: false), StringComparison.Ordinal);
            Assert.Equal(0, TapQueue.MtuOf("vmmtap0"));
            Make("vmmtap0", Tap | NoPacketInformation | FrameHeader);
            Assert.Equal(1500, TapQueue.MtuOf("vmmtap0"));
            Assert.Contains("not a tap with several queues", Refusal("vmmtap0", multiQueue: true), StringComparison.Ordinal);
            Assert.Contains("not a tap with one queue", Refusal("lo", multiQueue: false), StringComparison.Ordinal);
            using (TapQueue tap = TapQueue.Open("vmmtap0", multiQueue: false))
            {
                Assert.Equal("vmmtap0", tap.Name);
                Assert.Contains("in use", Refusal("vmmtap0", multiQueue: false), StringComparison.Ordinal);
                Assert.True(tap.TrySetOffloads(TapOffloads.Checksum | TapOffloads.Tso4 | TapOffloads.Tso6 | TapOffloads.TsoEcn));
                Assert.False(tap.TrySetOffloads((TapOffloads)(1u << 30)));
                Assert.False(tap.TryAttach(false)); // one queue
            }

            Make("vmmtap1", Tap | NoPacketInformation | FrameHeader | MultiQueue);
            using TapQueue first = TapQueue.Open("vmmtap1", multiQueue: true), second = TapQueue.Open("vmmtap1", multiQueue: true);
            Assert.True(second.TryAttach(false));
            Assert.False(second.TryAttach(false));
            Assert.True(second.TryAttach(true));
            Assert.Contains(
                "no tap queue",
                Assert.Throws<TapException>(() => TapQueue.FromDescriptor(new EventFd().Handle)).Message,
                StringComparison.Ordinal);
        });
    }

    private static string Refusal(string name, bool multiQueue) =>
        Assert.Throws<TapException>(() => TapQueue.Open(name, multiQueue)).Message;

    private static unsafe void Make(string name, int flags)
    {
        byte* request = stackalloc byte[40];
        new Span<byte>(request, 40).Clear();
        Encoding.ASCII.GetBytes(name, new Span<byte>(request, 16));
        *(short*)(request + 16) = (short)flags;
        fixed (byte* path = "/dev/net/tun\0"u8)
        {
            int fd = LibC.open(path, LibC.O_RDWR, 0);
            Assert.True(fd >= 0 && LibC.ioctl(fd, SetInterface, request) == 0 && LibC.ioctl(fd, SetPersist, 1) == 0, $"errno {LibC.errno}");
            Assert.Equal(0, LibC.close(fd));
        }
    }

    private static void InNamespace(Action action)
    {
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                Assert.True(LibC.unshare(LibC.CLONE_NEWNET) == 0, $"errno {LibC.errno}");
                action();
            }
            catch (Exception cause)
            {
                failure = cause;
            }
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }
}

/// <summary>A test that makes taps; skipped, with the reason, where that is not possible.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class TapFactAttribute : FactAttribute
{
    public override string? Skip
    {
        get => Environment.IsPrivilegedProcess && File.Exists("/dev/net/tun")
            ? base.Skip
            : "only root, with a usable /dev/net/tun, makes taps";
        set => base.Skip = value;
    }
}
