using System.Net;
using System.Text;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Storage;

namespace Vmm.Daemon.Tests;

public sealed class JobTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task Disks_are_made_used_and_deleted_and_nothing_is_overwritten()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Assert.Equal(
            JobState.Done, (await EndOf(daemon, await daemon.Client.CreateDiskAsync(new DiskRequest("a.raw", 1 << 20), s_none))).State);
        JobInfo full = await EndOf(
            daemon, await daemon.Client.CreateDiskAsync(new DiskRequest("b.raw", (3 << 20) + 512, Preallocate: true), s_none));
        Assert.Equal((JobState.Done, 1.0, "disk-create", "b.raw"), (full.State, full.Progress, full.Kind, full.Target));
        Assert.Equal(
            [("a.raw", 1L << 20), ("b.raw", (3L << 20) + 512)],
            (await daemon.Client.DisksAsync(s_none)).Disks.Select(d => (d.Name, d.SizeBytes)));
        string path = (await daemon.Client.DiskAsync("a.raw", s_none)).Path;
        await daemon.CreateAsync("web1", $"disks: [{{path: {path}}}]\n");
        Assert.Equal(["web1"], (await daemon.Client.DiskAsync("a.raw", s_none)).UsedBy);
        Assert.Equal("disk-in-use", (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteDiskAsync("a.raw", s_none))).Code);
        using (RawFileBackend.Open(Path.Combine(daemon.Options.DisksFolder, "b.raw"), new RawFileOptions { ReadOnly = true }))
        {
            // no spec names it: it is an image below another one, say
            Problem held = await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteDiskAsync("b.raw", s_none));
            Assert.Equal((409, "disk-in-use"), (held.Status, held.Code));
            Assert.Contains($"(process {Environment.ProcessId})", held.Detail, StringComparison.Ordinal);
        }

        await daemon.Client.DeleteDiskAsync("b.raw", s_none);

        File.WriteAllText(Path.Combine(daemon.Folder, "victim"), "kept");
        string link = Path.Combine(daemon.Options.DisksFolder, "link"), dangling = Path.Combine(daemon.Options.DisksFolder, "dangling");
        File.CreateSymbolicLink(link, Path.Combine(daemon.Folder, "victim"));
        File.CreateSymbolicLink(dangling, Path.Combine(daemon.Folder, "nothing"));
        foreach (string taken in new[] { "a.raw", "link", "dangling" })
        {
            Assert.Equal(
                "name-taken",
                (await DaemonFixture.RefusedAsync(() => daemon.Client.CreateDiskAsync(new DiskRequest(taken, 512), s_none))).Code);
        }

        Assert.Equal("disk-not-found", (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteDiskAsync("link", s_none))).Code);
        foreach (DiskRequest bad in new DiskRequest[]
        {
            new("../x", 512), new("/x", 512), new("", 512), new(".x", 512), new("x", 511), new("x", -512), new("x", 0),
            new("x", 512, "qcow2"), new("x\0", 512)
        })
        {
            Assert.Equal("disk-invalid", (await DaemonFixture.RefusedAsync(() => daemon.Client.CreateDiskAsync(bad, s_none))).Code);
        }

        Assert.Equal("no-space", (await DaemonFixture.RefusedAsync(
            () => daemon.Client.CreateDiskAsync(new DiskRequest("x", 1L << 46, Preallocate: true), s_none))).Code);
        Assert.Equal("kept", File.ReadAllText(Path.Combine(daemon.Folder, "victim")));
        Assert.False(File.Exists(Path.Combine(daemon.Folder, "nothing")));
        Assert.Equal(["a.raw"], (await daemon.Client.DisksAsync(s_none)).Disks.Select(d => d.Name));
    }

    [Fact]
    public async Task A_cancelled_job_leaves_nothing_and_an_interrupted_one_says_so()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        JobInfo job = await daemon.Client.CreateDiskAsync(new DiskRequest("big", 4L << 30, Preallocate: true), s_none);
        JobInfo cancelled = await daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await EndOf(daemon, cancelled)).State);
        Assert.Empty(Directory.GetFileSystemEntries(daemon.Options.DisksFolder));
        job = await daemon.Client.CreateDiskAsync(new DiskRequest("big", 4L << 30, Preallocate: true), s_none);
        await daemon.RestartAsync();
        Assert.Equal(JobState.Interrupted, (await daemon.Client.JobAsync(job.Id, s_none)).State);
        Assert.Equal(2, (await daemon.Client.JobsAsync(s_none)).Jobs.Count);
        Assert.Empty(Directory.GetFileSystemEntries(daemon.Options.DisksFolder));
        Assert.Equal("job-not-found", (await DaemonFixture.RefusedAsync(() => daemon.Client.JobAsync("x", s_none))).Code);
    }

    [Fact]
    public async Task A_graceful_stop_can_be_a_job()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        JobInfo job = await daemon.Client.BeginStopAsync("web1", TimeSpan.FromSeconds(60), s_none);
        Assert.Equal(("vm-stop", "web1", JobState.Running), (job.Kind, job.Target, job.State));
        for (int i = 0; i < 500 && worker.PowerButtonPresses == 0; i++)
        {
            await Task.Delay(10);
        }

        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
        worker.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        Assert.Equal(JobState.Done, (await EndOf(daemon, job)).State);
        Assert.Equal(VmState.Stopped, (await daemon.Client.ShowAsync("web1", s_none)).State);
        JobInfo late = await EndOf(daemon, await daemon.Client.BeginStopAsync("web1", TimeSpan.FromSeconds(1), s_none));
        Assert.Equal((JobState.Failed, "wrong-state"), (late.State, late.Error!.Code));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public async Task Bodies_headers_and_paths_of_any_kind_are_answered()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        Random random = new(5);
        int inputs = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int wanted)
            ? Math.Min(wanted, 20_000)
            : 400;
        for (int i = 0; i < inputs; i++)
        {
            using HttpRequestMessage asked = new(HttpMethod.Get, "/api/v1/vms");
            asked.Headers.TryAddWithoutValidation("Authorization", "Bearer " + Noise(random, 120));
            Assert.Equal(HttpStatusCode.Unauthorized, (await http.SendAsync(asked)).StatusCode);
            using HttpRequestMessage change = new(i % 3 == 0 ? HttpMethod.Delete : HttpMethod.Post, "/api/v1/"
                + new[] { "tokens", "disks", "jobs", "vms" }[i % 4] + (i % 5 == 0 ? "/" + Uri.EscapeDataString(Noise(random, 30)) : ""));
            change.Content = new StringContent(
                i % 2 == 0
                    ? $$"""
                        {"name":"{{Noise(random, 5)}}","role":"{{Noise(random, 3)}}","days":{{random.Next(-2, 5)}},
                        "sizeBytes":{{random.Next(-5, 5)}}}
                        """
                    : Noise(random, 200),
                Encoding.UTF8,
                "application/json");
            change.Headers.TryAddWithoutValidation("Prefer", Noise(random, 20));
            HttpStatusCode status = (await http.SendAsync(change)).StatusCode;
            Assert.True((int)status is >= 400 and < 500, $"input {i}: {change.Method} {change.RequestUri} {(int)status}");
            using HttpRequestMessage events = new(HttpMethod.Get, "/api/v1/events");
            events.Headers.TryAddWithoutValidation("Last-Event-ID", "x" + Noise(random, 20));
            Assert.Equal(HttpStatusCode.BadRequest, (await http.SendAsync(events)).StatusCode);
        }
    }

    private static string Noise(Random random, int most) => string.Create(random.Next(1, most), random, static (text, r) =>
    {
        foreach (ref char c in text)
        {
            c = (char)r.Next(0x21, 0x7F);
        }
    });

    private static async Task<JobInfo> EndOf(DaemonFixture daemon, JobInfo job)
    {
        await foreach (JobInfo now in daemon.Client.WatchJobAsync(job.Id, s_none))
        {
            job = now;
        }

        return job;
    }
}
