using System.Text;
using Tmds.Linux;

namespace Vmm.Interop.Tests;

public sealed class SocketTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-socket-").FullName;

    private string Name => Path.Combine(_folder, "s");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Streams_never_block()
    {
        Assert.Null(UnixStream.Connect(Name, out int errno));
        Assert.Equal(Errno.ENOENT, errno);
        using UnixListener listener = new(Name, 4);
        Assert.Equal(Errno.EADDRINUSE, Assert.Throws<KernelException>(() => new UnixListener(Name)).Errno);
        listener.Accept()!.Dispose(); // that one asked whether anybody listens
        using UnixStream near = UnixStream.Connect(Name, out errno)!;
        Assert.Equal(0, errno);
        using UnixStream far = listener.Accept()!;
        Assert.Null(listener.Accept());
        Span<byte> bytes = stackalloc byte[64];
        Assert.Equal(-1, near.Receive(bytes));
        Assert.Equal(5, far.Send("hello"u8));
        Assert.Equal(5, near.Receive(bytes, peek: true));
        Assert.Equal(5, near.Receive(bytes));
        Assert.True(bytes[..5].SequenceEqual("hello"u8));
        byte[] big = new byte[4096];
        while (near.Send(big) > 0)
        {
        }

        Assert.False(near.IsPeerGone);
        far.EndSend();
        Assert.Equal(0, near.Receive(bytes));
        far.Dispose();
        Assert.True(near.IsPeerGone);
        Assert.Equal(-1, near.Send(big));
    }

    [Fact]
    public void A_link_to_a_socket_is_followed_only_where_it_may_be()
    {
        using UnixListener listener = new(Name, 4);
        string link = Path.Combine(_folder, "l");
        File.CreateSymbolicLink(link, Name);
        using UnixStream? through = UnixStream.Connect(link, out _), itself = UnixStream.ConnectNoFollow(Name, out _);
        Assert.NotNull(through);
        Assert.NotNull(itself);
        Assert.Null(UnixStream.ConnectNoFollow(link, out int errno));
        Assert.Equal(Errno.ECONNREFUSED, errno);
        Assert.Null(UnixStream.ConnectNoFollow(_folder, out errno));
        Assert.Equal(Errno.ECONNREFUSED, errno);
        File.Delete(link);
        Assert.Null(UnixStream.ConnectNoFollow(link, out errno));
        Assert.Equal(Errno.ENOENT, errno);
    }

    [Fact]
    public void Packets_carry_descriptors_and_what_does_not_fit_leaves_none_open()
    {
        (PacketSocket one, PacketSocket other) = PacketSocket.CreatePair();
        using (one)
        using (other)
        using (EventFd sent = new())
        {
            sent.Signal();
            Span<byte> text = stackalloc byte[8];
            one.Send("hello"u8, [sent.Handle, one.Handle, other.Handle], 1000);
            Assert.Equal(PacketKind.Packet, other.Receive(text, 4, out int length, out FileDescriptorHandle[] got));
            Assert.Equal((5, 3), (length, got.Length));
            Assert.True(text[..5].SequenceEqual("hello"u8));
            Assert.Equal("1", Encoding.ASCII.GetString(File.ReadAllBytes($"/proc/self/fdinfo/{got[0].Number}"))
                .Split('\n')
                .Single(l => l.StartsWith("eventfd-count", StringComparison.Ordinal))
                .Split(':')[1]
                .Trim());
            Assert.True((LibC.fcntl(got[0].Number, LibC.F_GETFD) & LibC.FD_CLOEXEC) != 0);
            Array.ForEach(got, h => h.Dispose());
            Assert.Equal(PacketKind.Empty, other.Receive(text, 4, out _, out _));

            one.Send("x"u8, [sent.Handle, sent.Handle, sent.Handle], 1000);
            Assert.Equal(PacketKind.TooLarge, other.Receive(text, 2, out _, out got));
            Assert.Empty(got);
            one.Send("longer than eight"u8, [sent.Handle, sent.Handle], 1000);
            Assert.Equal(PacketKind.TooLarge, other.Receive(text, 4, out _, out got));
            Assert.Empty(got);
            Assert.Equal(1, DescriptorsOf(sent)); // of all that were sent none stayed open here
        }
    }

    [Fact]
    public void A_packet_that_nobody_takes_does_not_wait_for_ever()
    {
        (PacketSocket one, PacketSocket other) = PacketSocket.CreatePair();
        using (one)
        {
            byte[] big = new byte[4096];
            KernelException full = Assert.Throws<KernelException>(() =>
            {
                for (int i = 0; i < 10000; i++)
                {
                    one.Send(big, [], 10);
                }
            });
            Assert.Equal(Errno.ETIMEDOUT, full.Errno);
            Assert.Equal(Errno.EINVAL, Assert.Throws<KernelException>(() => one.Send([], [], 10)).Errno);
            other.Dispose();
            // what waited was thrown away
            Assert.Equal(Errno.ECONNRESET, Assert.Throws<KernelException>(() => one.Send("x"u8, [], 10)).Errno);
            Assert.Equal(Errno.EPIPE, Assert.Throws<KernelException>(() => one.Send("x"u8, [], 10)).Errno);
            Assert.Equal(PacketKind.End, one.Receive(new byte[8], 0, out _, out _));
        }
    }

    [Fact]
    public void Peers_are_known_and_names_are_checked()
    {
        using FileDescriptorHandle listener = PacketListener.Bind(Name);
        Assert.Equal(Errno.ECONNREFUSED, Assert.Throws<KernelException>(() => PacketSocket.Connect(Name)).Errno);
        PacketListener.Listen(listener);
        using PacketSocket client = PacketSocket.Connect(Name), server = PacketListener.Accept(listener);
        Assert.Equal(new PeerCredentials(Environment.ProcessId, LibC.getuid(), LibC.getgid()), client.Peer);
        Assert.Equal(Errno.EADDRINUSE, Assert.Throws<KernelException>(() => PacketListener.Bind(Name)).Errno);
        string longest = Name + new string('x', 107 - Name.Length);
        PacketListener.Bind(longest).Dispose();
        Assert.True(File.Exists(longest));
        Assert.Equal(Errno.ENAMETOOLONG, Assert.Throws<KernelException>(() => PacketListener.Bind(longest + "x")).Errno);
        Assert.Equal(Errno.ENAMETOOLONG, Assert.Throws<KernelException>(() => PacketListener.Bind("")).Errno);
        Assert.Equal(Errno.ENAMETOOLONG, Assert.Throws<KernelException>(() => PacketListener.Bind("a\0b")).Errno);
    }

    private static int DescriptorsOf(EventFd bell)
    {
        string id = Field(bell.Handle.Number)!;
        return Directory.GetFiles("/proc/self/fdinfo").Count(f => string.Equals(
            Field(int.Parse(Path.GetFileName(f), System.Globalization.CultureInfo.InvariantCulture)), id, StringComparison.Ordinal));
    }

    private static string? Field(int fd)
    {
        try
        {
            return File.ReadAllLines($"/proc/self/fdinfo/{fd}").FirstOrDefault(l => l.StartsWith("eventfd-id", StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return null; // closed meanwhile
        }
    }
}
