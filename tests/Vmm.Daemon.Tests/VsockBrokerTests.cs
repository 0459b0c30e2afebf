using System.Diagnostics;
using System.Net.Sockets;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;

namespace Vmm.Daemon.Tests;

/// <summary>What vmmd connects to on behalf of a worker, and how often.</summary>
public sealed class VsockBrokerTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-vb-").FullName;

    private string At(uint port) => Path.Combine(_folder, $"v_{port}");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Only_a_stream_socket_of_this_very_name_is_dialled()
    {
        VsockBroker broker = new(Path.Combine(_folder, "v"));
        using UnixListener listener = new(At(1)), other = new(Path.Combine(_folder, "other"));
        using Socket datagrams = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        datagrams.Bind(new UnixDomainSocketEndPoint(At(3)));
        File.CreateSymbolicLink(At(2), Path.Combine(_folder, "other"));
        File.CreateSymbolicLink(At(6), At(1));
        await File.WriteAllTextAsync(At(4), "");
        Directory.CreateDirectory(At(5));

        using UnixStream? good = await broker.ConnectAsync(new VsockDial(1, 1));
        Assert.NotNull(good);
        using UnixStream? taken = listener.Accept();
        Assert.NotNull(taken);
        foreach (uint port in new uint[] { 0, 2, 3, 4, 5, 6, uint.MaxValue })
        {
            using UnixStream? none = await broker.ConnectAsync(new VsockDial(2, port));
            Assert.True(none is null, $"port {port} was dialled");
        }

        using UnixStream? linked = other.Accept();
        Assert.Null(linked);
    }

    [Fact]
    public async Task More_than_the_rate_waits()
    {
        const int more = 20;
        VsockBroker broker = new(Path.Combine(_folder, "v"));
        Stopwatch time = Stopwatch.StartNew();
        for (int i = 0; i < VsockBroker.Burst + more; i++)
        {
            Assert.Null(await broker.ConnectAsync(new VsockDial(i, 9)));
        }

        // The bucket was full before the clock was started, and the last one goes as soon as its token is there.
        Assert.True(time.Elapsed >= TimeSpan.FromSeconds((double)(more - 1) / VsockBroker.Rate), $"{time.Elapsed}");
    }
}
