using System.Diagnostics;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>A daemon that is a recovery site, and primaries that send to it.</summary>
internal sealed class RecoverySite : IAsyncDisposable
{
    private readonly List<TestPrimary> _primaries = [];

    private RecoverySite(DaemonFixture daemon) => (Daemon, Http) = (daemon, ApiTests.Raw(daemon));

    internal DaemonFixture Daemon { get; }

    internal HttpClient Http { get; }

    internal VmmClient Client => Daemon.Client;

    internal static async Task<RecoverySite> StartAsync(Func<string, DaemonOptions>? options = null) =>
        new(await DaemonFixture.StartAsync(options));

    internal string FolderOf(string name) => Path.Combine(Daemon.Options.StateFolder, "replicas", name);

    /// <summary>A primary whose replica is here, with as many points.</summary>
    internal async Task<TestPrimary> ReplicaAsync(int points, string name = "web1", bool isLast = false)
    {
        TestPrimary primary = new(Daemon.Folder, Http, name);
        _primaries.Add(primary);
        await primary.PairAsync();
        for (int i = 0; i < points; i++)
        {
            await primary.ReplicateAsync(i + 1, isLast && i == points - 1);
        }

        return primary;
    }

    internal Task<RecoveryInfo> InfoAsync(string name = "web1") => Client.RecoveryAsync(name, CancellationToken.None);

    internal async Task<JobInfo> EndAsync(Task<JobInfo> begun) => await Daemon.EndAsync(await begun);

    internal async Task DoneAsync(Task<JobInfo> begun)
    {
        JobInfo job = await EndAsync(begun);
        Assert.True(job.State == JobState.Done, $"{job.Kind} {job.State}: {job.Error?.Detail}");
    }

    internal string DiskOf(string vm, string disk) => Path.Combine(Daemon.Options.MachinesFolder, vm, disk + ".qcow2");

    /// <summary>SHA-256 of each disk of a VM here, as qemu-img reads it.</summary>
    internal string[] HashesOf(string vm) => [.. TestPrimary.Disks.Select(disk => HashOf(DiskOf(vm, disk)))];

    internal string HashOf(string image)
    {
        string raw = Path.Combine(Daemon.Folder, $"read-{Guid.NewGuid():N}.raw");
        using Process qemu = Process.Start(new ProcessStartInfo("qemu-img", ["convert", "-U", "-f", "qcow2", "-O", "raw", image, raw])
        {
            UseShellExecute = false,
            RedirectStandardError = true,
        })!;
        string problem = qemu.StandardError.ReadToEnd();
        qemu.WaitForExit();
        Assert.True(qemu.ExitCode == 0, problem);
        string hash = TestPrimary.Hash(File.ReadAllBytes(raw));
        File.Delete(raw);
        return hash;
    }

    public async ValueTask DisposeAsync()
    {
        _primaries.ForEach(primary => primary.Dispose());
        Http.Dispose();
        await Daemon.DisposeAsync();
    }
}
