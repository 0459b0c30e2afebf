using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>
/// A daemon with a VM of two disks, and a recovery site whose points are real files. Workers are fakes: what one says to have merged was
/// empty, so that what the test writes into a file is what the guest has written.
/// </summary>
internal sealed class ReplicaHarness : IAsyncDisposable
{
    internal const int Bytes = 1 << 20;
    internal const string To = "https://127.0.0.1:1";

    private static readonly CancellationToken s_none = CancellationToken.None;

    private readonly CancellationTokenSource _over = new();
    private readonly string _siteFolder = Directory.CreateTempSubdirectory("site-").FullName;
    private Task _merging = Task.CompletedTask;

    private ReplicaHarness() => Site = new FakeSite(Path.Combine(_siteFolder, "points"));

    internal DaemonFixture Daemon { get; private set; } = null!;

    internal FakeSite Site { get; }

    internal FakeWorker Worker => Daemon.Workers.Alive.Values.Single();

    /// <param name="runs">The VM is started.</param>
    /// <param name="logs">Its worker keeps change logs; without them hashes tell what the test has written.</param>
    internal static async Task<ReplicaHarness> StartAsync(bool runs = true, bool logs = false)
    {
        ReplicaHarness made = new();
        made.Daemon = await DaemonFixture.StartAsync(_ => new DaemonOptions { ReplicaPeers = _ => made.Site.Connect() });
        made.Daemon.Workers.RefusesLogs = !logs;
        await File.WriteAllBytesAsync(made.In("root.img"), Content(1));
        await File.WriteAllBytesAsync(made.In("data.img"), new byte[Bytes]);
        await File.WriteAllBytesAsync(made.In("cd.iso"), new byte[Bytes]);
        await made.Daemon.CreateAsync("web1", """
            disks:
              - path: root.img
              - path: data.img
              - {path: cd.iso, readOnly: true}

            """);
        if (runs)
        {
            await made.Daemon.Client.DoAsync("web1", "start", s_none);
        }

        made._merging = made.MirrorAsync();
        return made;
    }

    internal static byte[] Content(int seed)
    {
        byte[] content = new byte[Bytes];
        new Random(seed).NextBytes(content.AsSpan(seed % 8 * 100_000, 70_000));
        return content;
    }

    internal string In(string name) => Path.Combine(Daemon.Folder, name);

    internal Task<ReplicaInfo> EnableAsync(int interval = 3600) =>
        Daemon.Client.ReplicateAsync("web1", new ReplicaWish(To, IntervalSeconds: interval), s_none);

    internal Task<ReplicaInfo> InfoAsync() => Daemon.Client.ReplicaAsync("web1", s_none);

    internal async Task<JobInfo> JobAsync(string what) =>
        await Daemon.EndAsync(await Daemon.Client.ReplicaJobAsync("web1", what, s_none));

    /// <summary>Cuts now; the point is safe.</summary>
    internal async Task SyncAsync()
    {
        JobInfo job = await JobAsync("sync");
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
    }

    internal async Task<ReplicaInfo> UntilAsync(ReplicaState state)
    {
        ReplicaInfo info = await InfoAsync();
        for (int i = 0; i < 2400 && info.State != state; i++)
        {
            await Task.Delay(25);
            info = await InfoAsync();
        }

        Assert.True(info.State == state, $"{info.State}, expected {state}: {info.LastError}");
        return info;
    }

    /// <summary>The newest point at the site has what the files have, and its hashes are right.</summary>
    internal async Task SameAsync(params string[] files)
    {
        ArrangedPoint newest = Site.Newest!;
        Site.Points.Verify(newest);
        files = files.Length > 0 ? files : ["root.img", "data.img"];
        Assert.Equal(files.Length, newest.Point.Disks.Count);
        for (int i = 0; i < files.Length; i++)
        {
            string copy = Path.Combine(_siteFolder, "copy");
            ImageConvert.Run(
                Site.Points.ImageOf(newest, newest.Point.Disks[i].Name), copy,
                new ConvertOptions { SourceFormat = "qcow2", TargetFormat = "raw", Replace = true });
            Assert.Equal(await File.ReadAllBytesAsync(In(files[i])), await File.ReadAllBytesAsync(copy));
        }
    }

    /// <summary>What was told about the VM.</summary>
    internal async Task<IReadOnlyList<string>> ToldAsync(string kind) =>
        [.. (await Daemon.Client.EventsOfAsync("web1", s_none)).Events.Where(e => e.Kind == kind).Select(e => e.Message!)];

    public async ValueTask DisposeAsync()
    {
        await Daemon.DisposeAsync();
        await _over.CancelAsync();
        await _merging;
        Site.Dispose();
        Directory.Delete(_siteFolder, recursive: true);
        _over.Dispose();
    }

    // Each commit that a worker is asked for is as far as it can be at once.
    private async Task MirrorAsync()
    {
        while (!_over.IsCancellationRequested)
        {
            foreach (FakeWorker worker in Daemon.Workers.Alive.Values.Where(each => each.CopyInfo.State is DiskCopyState.Copying))
            {
                worker.CopyInfo = worker.CopyInfo with { State = DiskCopyState.Mirrored };
            }

            await Task.Delay(10, CancellationToken.None);
        }
    }
}
