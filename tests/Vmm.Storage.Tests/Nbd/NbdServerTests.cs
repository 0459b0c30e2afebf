using System.Collections.Concurrent;
using Vmm.Interop;
using Vmm.Storage.Nbd;
using Vmm.Storage.Tests.Crash;

namespace Vmm.Storage.Tests.Nbd;

/// <summary>Disks of real servers: what they announce, refuse and fail, and what becomes of a disk whose server goes and comes.</summary>
public sealed class NbdServerTests
{
    private const int Size = 8 << 20;

    [NbdFact]
    public async Task A_server_that_is_killed_and_started_under_load_costs_no_request_and_no_byte()
    {
        using TemporaryFile file = new(Size);
        using NbdServer server = NbdServer.Qemu(file.Path);
        ConcurrentQueue<NbdReport> reports = new();
        using NbdBackend disk = server.Open(new() { Name = "disk", KeepsUnflushed = true, Changed = reports.Enqueue });
        using CancellationTokenSource over = new();
        Task killer = Task.Run(() =>
        {
            while (!over.IsCancellationRequested)
            {
                Thread.Sleep(200);
                server.Kill();
                Thread.Sleep(30);
                int before = reports.Count(report => report.IsConnected);
                server.Start();
                SpinWait.SpinUntil(() => reports.Count(report => report.IsConnected) > before || over.IsCancellationRequested);
            }
        });
        DiskModel model = new(new SparseBytes { Length = Size });
        for (int seed = 0; seed < 20 || reports.Count < 10; seed++)
        {
            Workload load = new(seed, Queues: 2, Requests: 100) { Places = [(0, Size)] };
            string? wrong = load.Run(disk, model, out bool closed);
            Assert.True(wrong is null && closed, $"seed {seed}: {wrong}");
        }

        await over.CancelAsync();
        await killer;
        Assert.Contains(reports, report => report is { IsConnected: false, IsGivenUp: false, Why: not null });
        Assert.DoesNotContain(reports, report => report.IsGivenUp);
        string? last = DiskReader.Read(disk, [(0, Size)], model.WrongToRead);
        Assert.True(last is null, last);
    }

    [NbdFact]
    public void Requests_are_held_up_to_a_deadline_then_fail_and_are_served_when_the_server_is_back()
    {
        using TemporaryFile file = new(Size);
        using NbdServer server = NbdServer.Qemu(file.Path);
        ConcurrentQueue<NbdReport> reports = new();
        using NbdBackend disk = server.Open(
            new() { Name = "disk", Reconnect = TimeSpan.FromSeconds(1), Changed = reports.Enqueue });
        using DiskDriver driver = new(disk);
        server.Kill();
        Assert.Equal(DiskStatus.IoError, driver.Read(0, new byte[4096]));
        Assert.False(driver[0].IsFinal); // may be tried again
        Assert.Equal([false, true], reports.Select(r => r.IsGivenUp));
        Assert.Equal(DiskStatus.IoError, driver.Write(0, new byte[4096])); // at once, as long as it is away
        Assert.False(disk.CanGoOn(DiskStatus.IoError));
        server.Start();
        Assert.True(SpinWait.SpinUntil(() => disk.CanGoOn(DiskStatus.IoError), 60_000));
        Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[4096]));
        Assert.True(reports.Last().IsConnected);
    }

    [NbdFact]
    public void After_a_lost_connection_a_flush_fails_once_when_it_would_cover_what_may_be_lost()
    {
        using TemporaryFile file = new(Size);
        using NbdServer server = NbdServer.Qemu(file.Path);
        using NbdBackend disk = server.Open();
        using DiskDriver driver = new(disk);
        byte[] data = new byte[4096];

        Restart(data.Length); // nothing was written: nothing can be lost
        Assert.Equal(DiskStatus.Ok, driver.Flush());

        Assert.Equal(DiskStatus.Ok, driver.Write(0, data));
        Restart(data.Length);
        Assert.Equal(DiskStatus.IoError, driver.Flush());
        Assert.True(driver[0].IsFinal);
        Assert.Equal(DiskStatus.Ok, driver.Flush()); // told

        Assert.Equal(DiskStatus.Ok, driver.Write(0, data));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
        Assert.Equal(DiskStatus.Ok, driver.WriteThrough(8192, data));
        Restart(data.Length);
        Assert.Equal(DiskStatus.Ok, driver.Flush());

        void Restart(int length)
        {
            server.Kill();
            server.Start();
            Assert.Equal(DiskStatus.Ok, driver.Read(0, new byte[length])); // it is seen now
        }
    }

    [NbdFact]
    public void The_end_of_a_node_tells_when_what_was_written_may_be_lost()
    {
        using TemporaryFile file = new(Size);
        using NbdServer server = NbdServer.Qemu(file.Path);
        using NbdBackend disk = server.Open();
        using DiskDriver driver = new(disk);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[4096]));
        server.Kill();
        server.Start();
        Assert.Equal(DiskStatus.Ok, driver.Read(0, new byte[512]));
        BlockException told = Assert.Throws<BlockException>(() => driver.Node.FlushAndClose(driver.Loop));
        Assert.Contains("may be lost", told.Message, StringComparison.Ordinal);
    }

    [NbdFact]
    public void A_server_that_hangs_is_taken_for_lost_and_its_requests_are_done_when_it_goes_on()
    {
        using TemporaryFile file = new(Size);
        using NbdServer server = NbdServer.Qemu(file.Path);
        ConcurrentQueue<NbdReport> reports = new();
        using NbdBackend disk = server.Open(
            new() { Name = "disk", Timeout = TimeSpan.FromSeconds(8), KeepsUnflushed = true, Changed = reports.Enqueue });
        using DiskDriver driver = new(disk);
        server.Hang(true);
        driver[1].Prepare(BlockKind.WriteZeroes, 0, 4096);
        driver.Node.Submit(driver[1]);
        Assert.True(SpinWait.SpinUntil(() => !reports.IsEmpty, 60_000));
        server.Hang(false);
        driver.WaitForAll();
        Assert.Equal(DiskStatus.Ok, driver.Status(1));
        Assert.Contains("without an answer", reports.First().Why, StringComparison.Ordinal);
    }

    [NbdFact]
    public void A_server_that_comes_back_with_another_disk_is_not_taken()
    {
        using TemporaryFile file = new(Size);
        using NbdServer server = NbdServer.Qemu(file.Path);
        ConcurrentQueue<NbdReport> reports = new();
        using NbdBackend disk = server.Open(
            new() { Name = "disk", Reconnect = TimeSpan.FromSeconds(8), Changed = reports.Enqueue });
        using DiskDriver driver = new(disk);
        server.Kill();
        using (FileStream other = new(file.Path, FileMode.Open))
        {
            other.SetLength(Size / 2);
        }

        server.Start();
        Assert.Equal(DiskStatus.IoError, driver.Read(0, new byte[4096]));
        Assert.Contains($"{Size / 2} bytes now", reports.Last().Why, StringComparison.Ordinal);
        Assert.Equal((ulong)Size, disk.Geometry.CapacityBytes);
    }

    [NbdFact("nbdkit")]
    public void Errors_of_the_server_keep_their_kind_and_the_next_request_is_served()
    {
        foreach ((string error, DiskStatus status) in new[] { ("EIO", DiskStatus.IoError), ("ENOSPC", DiskStatus.NoSpace) })
        {
            string fails = Path.Combine(Path.GetTempPath(), "nbd-fails-" + Guid.NewGuid().ToString("N"));
            using NbdServer server = NbdServer.Kit(
                "--filter=error", "memory", "1M", $"error={error}", $"error-file={fails}", "error-rate=100%");
            using NbdBackend disk = server.Open();
            using DiskDriver driver = new(disk);
            byte[] data = new byte[4096];
            Assert.Equal(DiskStatus.Ok, driver.Write(0, data));
            File.WriteAllText(fails, "");
            Assert.Equal(status, driver.Write(0, data));
            Assert.Equal(status, driver.Read(0, data));
            Assert.Equal(status, driver.WriteZeroes(0, 4096, mayUnmap: true));
            File.Delete(fails);
            Assert.Equal(DiskStatus.Ok, driver.Read(0, data));
        }
    }

    [NbdFact("nbdkit")]
    public void Blocks_that_a_server_wants_are_told_and_kept()
    {
        using NbdServer server = NbdServer.Kit("--filter=blocksize-policy", "memory", "16M", "blocksize-minimum=4096",
            "blocksize-preferred=65536", "blocksize-maximum=1M", "blocksize-error-policy=error");
        using NbdBackend disk = server.Open();
        Assert.Equal((4096, 65536), (disk.Geometry.LogicalBlockSize, disk.Geometry.PhysicalBlockSize));
        using DiskDriver driver = new(disk);
        byte[] data = new byte[5 << 20], back = new byte[5 << 20];
        new Random(1).NextBytes(data);
        Assert.Equal(DiskStatus.Ok, driver.Write(4096, data)); // in pieces
        Assert.Equal(DiskStatus.Ok, driver.Read(4096, back, shift: 3, 1000, 600_000, 3_000_001));
        Assert.Equal(data, back);
        Assert.Equal(DiskStatus.Ok, driver.WriteZeroes(0, 16 << 20, mayUnmap: false));
        Assert.Equal(DiskStatus.IoError, driver.Read(512, new byte[4096]));
        Assert.Equal(DiskStatus.IoError, driver.Write(0, new byte[512]));
        Assert.Equal(DiskStatus.Ok, driver.Discard(512, 4096)); // a hint
    }

    [NbdFact("nbdkit")]
    public void A_server_without_optional_commands_gets_zeros_as_data_and_no_discards()
    {
        using NbdServer server = NbdServer.Kit("--filter=nozero", "memory", "4M", "zeromode=none");
        using NbdBackend disk = server.Open();
        using DiskDriver driver = new(disk);
        byte[] ones = new byte[3 << 20], back = new byte[3 << 20];
        ones.AsSpan().Fill(1);
        Assert.True(driver.Node.WritesZeroesAsData(mayUnmap: true));
        Assert.Equal(DiskStatus.Ok, driver.Write(0, ones));
        Assert.Equal(DiskStatus.Ok, driver.WriteZeroes(512, (2 << 20) + 512, mayUnmap: true));
        ones.AsSpan(512, (2 << 20) + 512).Clear();
        Assert.Equal(DiskStatus.Ok, driver.Read(0, back));
        Assert.Equal(ones, back);
    }

    [NbdFact]
    public void A_disk_that_cannot_be_had_is_refused_with_its_name_and_the_reason()
    {
        using TemporaryFile file = new(Size), odd = new(0);
        using NbdServer server = NbdServer.Qemu(file.Path, readOnly: true), empty = NbdServer.Qemu(odd.Path);
        BlockException readOnly = Assert.Throws<BlockException>(() => server.Open(new() { Name = "D" }));
        Assert.Equal(BlockErrorKind.AccessDenied, readOnly.Kind);
        Assert.Contains("readOnly: true", readOnly.Message, StringComparison.Ordinal);
        BlockException export = Assert.Throws<BlockException>(() => server.Open(new() { Name = "D", Export = "nobody", ReadOnly = true }));
        Assert.Contains("disk D: the server did not let us in", export.Message, StringComparison.Ordinal);
        Assert.Equal(BlockErrorKind.BadSize, Assert.Throws<BlockException>(() => empty.Open(new() { Name = "D" })).Kind);
        BlockException nobody = Assert.Throws<BlockException>(
            () => NbdBackend.Open(new() { Name = "D" }, NbdDialer.Unix("/nonexistent/socket")).Dispose());
        Assert.Contains("connect to /nonexistent/socket", nobody.Message, StringComparison.Ordinal);
        using NbdBackend disk = server.Open(new() { Name = "D", ReadOnly = true });
        Assert.True(disk.Geometry.ReadOnly);
    }

    [NbdFact("nbdkit")]
    public void A_server_at_a_port_is_reached_by_name_and_by_address()
    {
        foreach (string host in new[] { "localhost", "127.0.0.1" })
        {
            int port = FreePort();
            using NbdServer server = NbdServer.KitAtPort(port, "memory", "1M");
            using NbdBackend disk = NbdBackend.Open(new() { Name = host }, NbdDialer.Tcp(host, port));
            using DiskDriver driver = new(disk);
            Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[4096]));
        }

        BlockException nobody = Assert.Throws<BlockException>(
            () => NbdBackend.Open(new() { Name = "D" }, NbdDialer.Tcp("127.0.0.1", FreePort())).Dispose());
        Assert.Contains("Connection refused", nobody.Message, StringComparison.Ordinal);
    }

    private static int FreePort()
    {
        using System.Net.Sockets.TcpListener listener = new(System.Net.IPAddress.Loopback, 0);
        listener.Start();
        return ((System.Net.IPEndPoint)listener.LocalEndpoint).Port;
    }
}
