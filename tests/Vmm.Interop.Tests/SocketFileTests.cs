using System.Net.Sockets;

namespace Vmm.Interop.Tests;

/// <summary>What stands where a socket is to be: only a dead socket of ours is ever removed.</summary>
public sealed class SocketFileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-s-").FullName;

    private string At => Path.Combine(_folder, "s");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_regular_file_stays_and_is_named()
    {
        File.WriteAllText(At, "a disk image");
        KernelException refused = Assert.Throws<KernelException>(() => new UnixListener(At));
        Assert.Contains(At, refused.Message, StringComparison.Ordinal);
        Assert.Contains("no socket", refused.Message, StringComparison.Ordinal);
        Assert.Equal("a disk image", File.ReadAllText(At));
    }

    [Theory]
    [InlineData("target")]
    [InlineData("dead")]
    public void A_link_stays_and_what_it_names_too(string target)
    {
        string other = Path.Combine(_folder, target);
        if (target is "dead")
        {
            Leave(other);
        }
        else
        {
            File.WriteAllText(other, "kept");
        }

        File.CreateSymbolicLink(At, other);
        Assert.Throws<KernelException>(() => new UnixListener(At));
        Assert.Equal(other, new FileInfo(At).LinkTarget);
        Assert.True(File.Exists(other));
    }

    [Fact]
    public void A_folder_stays()
    {
        Directory.CreateDirectory(At);
        Assert.Throws<KernelException>(() => new UnixListener(At));
        Assert.True(Directory.Exists(At));
    }

    [Fact]
    public void A_dead_socket_is_replaced_and_a_living_one_is_not()
    {
        Leave(At);
        using UnixListener first = new(At);
        Assert.Throws<KernelException>(() => new UnixListener(At));
        using UnixStream? client = UnixStream.Connect(At, out _);
        Assert.NotNull(client);
    }

    [Fact]
    public void The_dead_socket_of_another_user_stays()
    {
        Assert.True(Environment.IsPrivilegedProcess, "the suite runs as root");

        Leave(At);
        using (System.Diagnostics.Process chown = System.Diagnostics.Process.Start("chown", ["1", At]))
        {
            chown.WaitForExit();
        }

        Assert.Contains("uid 1", Assert.Throws<KernelException>(() => new UnixListener(At)).Message, StringComparison.Ordinal);
        Assert.True(File.Exists(At));
    }

    [Fact]
    public void A_listener_takes_away_its_own_name_only()
    {
        UnixListener first = new(At);
        File.Delete(At);
        File.WriteAllText(At, "another's");
        first.Dispose();
        Assert.Equal("another's", File.ReadAllText(At));
        File.Delete(At);
        new UnixListener(At).Dispose();
        Assert.False(File.Exists(At));
    }

    private static void Leave(string path)
    {
        using UnixListener listener = new(path);
        string kept = path + ".kept";
        File.Move(path, kept); // disposing takes the name away, not this one
        listener.Dispose();
        File.Move(kept, path);
        using Socket probe = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        Assert.Throws<SocketException>(() => probe.Connect(new UnixDomainSocketEndPoint(path)));
    }
}
