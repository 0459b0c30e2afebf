using System.Net.Sockets;
using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>vmmd connects disks to NBD servers: to those that an administrator and the spec name, whatever a worker asks for.</summary>
public sealed class NbdTests : IDisposable
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), "vmm-nbd-" + Guid.NewGuid().ToString("N")[..12]);
    private readonly Socket _server = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    public NbdTests()
    {
        _server.Bind(new UnixDomainSocketEndPoint(_path));
        _server.Listen(8);
    }

    public void Dispose()
    {
        _server.Dispose();
        File.Delete(_path);
    }

    [Fact]
    public void A_worker_is_passed_a_socket_that_is_connected_to_the_server_of_the_spec()
    {
        DiskAccess access = new(new StorageFolders([], [], [_path]));
        using WorkerResources resources = WorkerResources.Open(Disk(_path), access);
        Assert.Equal(["disk0"], resources.Names);
        Assert.Equal((true, false), (resources.HasServers, resources.HasImages));
        using Socket accepted = _server.Accept();
        using UnixStream passed = UnixStream.FromDescriptor(new FileDescriptorHandle(resources.Handles[0].Detach()));
        Assert.Equal(2, passed.Send("hi"u8));
        byte[] got = new byte[2];
        Assert.Equal(2, accepted.Receive(got));
        Assert.Equal("hi"u8, got);
    }

    [Fact]
    public void A_server_that_nobody_allowed_is_not_connected_to()
    {
        foreach (IReadOnlyList<string>? servers in new IReadOnlyList<string>?[] { null, [], [_path + "x"], ["localhost:10809"] })
        {
            DiskAccess access = new(new StorageFolders(["/"], [], servers));
            WorkerException refused = Assert.Throws<WorkerException>(() => WorkerResources.Open(Disk(_path), access));
            Assert.Contains("\"nbdServers\" in vmmd.yaml", refused.Message, StringComparison.Ordinal);
        }

        Assert.False(_server.Poll(0, SelectMode.SelectRead));
        StorageFolders rule = new([], [], ["storage1:10809"]);
        Assert.Null(rule.Problem(new NbdSpec { Host = "storage1" }));
        Assert.NotNull(rule.Problem(new NbdSpec { Host = "storage1", Port = 22 }));
        Assert.Contains("TLS is not possible", rule.Problem(new NbdSpec { Host = "storage1", Tls = new() })!, StringComparison.Ordinal);
    }

    [Fact]
    public void A_link_in_place_of_the_socket_is_not_followed()
    {
        string link = _path + "l";
        File.CreateSymbolicLink(link, _path);
        try
        {
            DiskAccess access = new(new StorageFolders([], [], [link]));
            Assert.Contains("Connection refused", Assert.Throws<WorkerException>(() => WorkerResources.Open(Disk(link), access)).Message,
                StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(link);
        }
    }

    [Fact]
    public async Task A_worker_gets_new_sockets_for_the_disks_of_its_spec_and_for_no_others()
    {
        TaskCompletionSource<(StorageDialed Body, bool Connected)>[] answers = [new(), new(), new()];
        StorageDials dials = new((body, socket) =>
        {
            answers[body.Dial].SetResult((body, socket is not null));
            return Task.CompletedTask;
        });
        DiskSpec gone = Disk(_path + "gone");
        dials.Serve("", [Disk(_path), gone]);
        dials.Begin(new StorageDial(0, Disk(_path).Path));
        dials.Begin(new StorageDial(1, "nbd+unix:///?socket=/run/docker.sock"));
        dials.Begin(new StorageDial(2, gone.Path));
        Assert.Equal((new StorageDialed(0, null), true), await answers[0].Task);
        Assert.Equal((new StorageDialed(1, "this VM has no such disk, shared folder or device"), false), await answers[1].Task);
        (StorageDialed refused, bool connected) = await answers[2].Task;
        Assert.False(connected);
        Assert.Contains("connect to", refused.Problem, StringComparison.Ordinal);
    }

    [Fact]
    public void The_settings_name_servers()
    {
        DaemonOptions options = DaemonConfig.Apply(
            new DaemonOptions(), "f", "nbdServers:\n  - storage1:10809\n  - /run/nbd.sock\n", out string problem)!;
        Assert.Equal(["storage1:10809", "/run/nbd.sock"], options.NbdServers);
        Assert.Equal(["[::1]:1"], DaemonOptions.Parse(["--nbd-servers", "[::1]:1"], out _)!.NbdServers);
        Assert.Null(DaemonConfig.Apply(new DaemonOptions(), "f", "nbdServers:\n  - storage1\n", out problem));
        Assert.Contains("HOST:PORT", problem, StringComparison.Ordinal);
    }

    private static DiskSpec Disk(string socket)
    {
        NbdSpec nbd = new() { Socket = socket };
        return new DiskSpec { Path = nbd.Uri, Nbd = nbd };
    }
}
