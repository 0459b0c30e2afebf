using System.Net.Sockets;
using Vmm.Daemon.Workers;
using Vmm.Interop;

namespace Vmm.Daemon.Tests;

/// <summary>Which worker a program reaches by the name of a vsock, while two have the VM.</summary>
public sealed class VsockNamesTests : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("vmm-vn-");

    private string Name => Path.Combine(_folder.FullName, "v.sock");

    public void Dispose() => _folder.Delete(recursive: true);

    [Fact]
    public void A_program_reaches_the_one_or_the_other_and_the_end_of_the_first_takes_no_name_away()
    {
        UnixListener first = new(Name);
        using UnixListener next = new(VsockNames.BindNext(Name));
        Connect(first, next);
        VsockNames.TakeName(Name);
        Connect(next, first);
        VsockNames.TakeName(Name); // again, by a daemon that comes after
        first.Dispose();
        Connect(next, first: null);
        Assert.Equal([Name], Directory.GetFiles(_folder.FullName));
    }

    [Fact]
    public void A_second_worker_that_is_given_up_leaves_no_name()
    {
        using UnixListener first = new(Name);
        new UnixListener(VsockNames.BindNext(Name)).Leave();
        VsockNames.Drop(Name);
        VsockNames.Drop(Name);
        Assert.Equal([Name], Directory.GetFiles(_folder.FullName));
    }

    [Fact]
    public void What_is_no_socket_is_left_alone()
    {
        File.WriteAllText(Name, "mine");
        File.WriteAllText(Name + ".next", "mine, too");
        VsockNames.Drop(Name);
        VsockNames.TakeName(Name);
        Assert.Throws<KernelException>(() => VsockNames.BindNext(Name));
        File.Delete(Name + ".next");
        using UnixListener next = new(VsockNames.BindNext(Name));
        Assert.Contains("no socket", Assert.Throws<IOException>(() => VsockNames.TakeName(Name)).Message, StringComparison.Ordinal);
        Assert.Equal("mine", File.ReadAllText(Name));
    }

    private void Connect(UnixListener one, UnixListener? first)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(Name));
        using UnixStream? taken = one.Accept();
        Assert.NotNull(taken);
        using UnixStream? none = first is { Handle.IsClosed: false } ? first.Accept() : null;
        Assert.Null(none);
    }
}
