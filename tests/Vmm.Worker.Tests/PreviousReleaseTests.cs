using System.Diagnostics;
using System.Text;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>
/// Daemons and workers of this tree and of the previous release (<c>tests/previous/build</c>), as published programs, in every pair that an
/// update makes: a
/// VM runs on under the daemon that comes next, whichever started it.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class PreviousReleaseTests
{
    private static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(60)).Token;

    [PreviousReleaseTheory]
    [InlineData(Release.Previous, Release.Previous, Release.Present)] // an update
    [InlineData(Release.Present, Release.Present, Release.Previous)] // and back
    [InlineData(Release.Previous, Release.Present, Release.Present)] // the update came while the old daemon ran
    [InlineData(Release.Present, Release.Previous, Release.Previous)]
    public async Task A_vm_runs_on_under_a_daemon_of_another_release_and_obeys_it(Release daemon, Release worker, Release next)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-r-").FullName;
        string disk = Path.Combine(folder, "late.img");
        await File.WriteAllBytesAsync(disk, new byte[1 << 20], Soon);
        Process? vm = null; // a worker lives on without its daemon, also when this test fails
        try
        {
            int pid;
            using (Vmmd first = await Vmmd.StartAsync(daemon, worker, folder))
            {
                string yaml =
                    $"name: kept\nmemory: 64MiB\nboot:\n  kernel: {Path.Combine(Tree.Root, "tests", "guests", "build", "hotplug.elf")}\n";
                await first.Client.CreateAsync(yaml, "/", Soon);
                VmInfo started = await first.Client.DoAsync("kept", "start", Soon);
                pid = started.WorkerProcessId!.Value;
                vm = Process.GetProcessById(pid);
                await ObeysAsync(first.Client);
            }

            using Vmmd second = await Vmmd.StartAsync(next, next, folder);
            VmInfo adopted = await second.Client.ShowAsync("kept", Soon);
            Assert.Equal((VmState.Running, pid), (adopted.State, adopted.WorkerProcessId!.Value));
            await ObeysAsync(second.Client);
            DeviceInfo added = await second.Client.AttachAsync("kept", "disks", $"path: {disk}\n", stay: false, Soon);
            Assert.Contains((await second.Client.DevicesAsync("kept", Soon)).Devices, d => d.Name == added.Name && d.Source == disk);
            Assert.NotEqual(
                DeviceRemoval.Refused,
                (await second.Client.DetachAsync("kept", added.Name, TimeSpan.FromSeconds(1), force: true, forGood: false, Soon)).Outcome);
            if (worker is Release.Previous && next is Release.Present)
            {
                await ImagesAreRefusedAsync(second.Client, folder);
            }

            VmInfo stopped = await second.Client.DoAsync("kept", "stop", Soon);
            Assert.Equal((VmState.Stopped, ExitReason.Stopped), (stopped.State, stopped.LastExit?.Reason));
        }
        finally
        {
            if (vm?.HasExited == false)
            {
                vm.Kill();
            }

            vm?.Dispose();
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task ObeysAsync(VmmClient client)
    {
        Assert.Equal(VmState.Paused, (await client.DoAsync("kept", "pause", Soon)).State);
        Assert.Equal(VmState.Running, (await client.DoAsync("kept", "resume", Soon)).State);
        Assert.True((await client.StatsAsync("kept", Soon)).ResidentBytes > 0);
        Assert.Single((await client.MemoryAsync("kept", Soon)).Vnodes);
        Assert.Single((await client.NumaAsync("kept", Soon)).Vnodes);
    }

    /// <summary>A worker that does not know images took one for a raw disk.</summary>
    private static async Task ImagesAreRefusedAsync(VmmClient client, string folder)
    {
        string image = Path.Combine(folder, "late.qcow2");
        Vmm.Storage.Tests.Qcow2.QemuImg.Run("create", "-f", "qcow2", image, "1M");
        VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(
            () => client.AttachAsync("kept", "disks", $"path: {image}\nformat: qcow2\n", stay: false, Soon));
        Assert.Equal(ControlCodes.WorkerTooOld, refused.Problem?.Code);
        Assert.Empty((await client.DevicesAsync("kept", Soon)).Devices);
        Assert.Equal(VmState.Running, (await client.ShowAsync("kept", Soon)).State);
    }

    /// <summary>Which programs.</summary>
    public enum Release
    {
        /// <summary>Those of <c>tests/previous/commit</c>.</summary>
        Previous,

        /// <summary>Those of this tree.</summary>
        Present,
    }

    private static string Program(Release release, string name) =>
        release is Release.Present ? Tree.Published("vmmd", name) : Path.Combine(PreviousReleaseTheoryAttribute.Folder, name);

    /// <summary>A daemon process; disposing ends it, its VMs go on.</summary>
    private sealed class Vmmd : IDisposable
    {
        private readonly Process _process;
        private readonly StringBuilder _said = new();

        private Vmmd(Release daemon, Release worker, string folder)
        {
            string run = Path.Combine(folder, "run");
            ProcessStartInfo start = new(Program(daemon, "vmmd"),
            [
                "--state", Path.Combine(folder, "state"), "--run", run, "--worker", Program(worker, "vmm-worker"),
                "--storage", "/", "--pool", "0",
            ])
            {
                UseShellExecute = false,
                RedirectStandardError = true,
                RedirectStandardOutput = true,
            };
            _process = Process.Start(start)!;
            _process.ErrorDataReceived += Hear;
            _process.OutputDataReceived += Hear;
            _process.BeginErrorReadLine();
            _process.BeginOutputReadLine();
            Client = new VmmClient(Path.Combine(run, "vmmd.sock"));
        }

        internal VmmClient Client { get; }

        internal static async Task<Vmmd> StartAsync(Release daemon, Release worker, string folder)
        {
            Vmmd vmmd = new(daemon, worker, folder);
            CancellationToken limit = Soon;
            while (true)
            {
                try
                {
                    await vmmd.Client.ListAsync(limit);
                    return vmmd;
                }
                catch (Exception e) when (e is HttpRequestException or VmmApiException && !limit.IsCancellationRequested
                    && !vmmd._process.HasExited)
                {
                    await Task.Delay(50, limit);
                }
                catch (Exception e)
                {
                    vmmd.Dispose();
                    throw new InvalidOperationException($"vmmd does not serve: {e.Message}\n{vmmd._said}", e);
                }
            }
        }

        public void Dispose()
        {
            Client.Dispose();
            _process.Kill();
            _process.WaitForExit();
            _process.Dispose();
        }

        private void Hear(object sender, DataReceivedEventArgs line)
        {
            lock (_said)
            {
                _said.AppendLine(line.Data);
            }
        }
    }
}

/// <summary>A theory for the local KVM and the programs of the previous release; skipped, with the reason, where one is missing.</summary>
internal sealed class PreviousReleaseTheoryAttribute : TheoryAttribute
{
    public PreviousReleaseTheoryAttribute()
    {
        Skip = new KvmFactAttribute().Skip;
        if (Skip is null && (!File.Exists(Path.Combine(Folder, "vmmd")) || !File.Exists(Path.Combine(Folder, "vmm-worker"))))
        {
            Skip = $"no programs of the previous release in {Folder}: run tests/previous/build";
        }
    }

    /// <summary>Where <c>tests/previous/build</c> puts them.</summary>
    internal static string Folder
    {
        get
        {
            string commit = File.ReadAllText(Path.Combine(Tree.Root, "tests", "previous", "commit")).Trim();
            string cache = Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } set ? set
                : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
            return Path.Combine(cache, "vmm", "previous", commit);
        }
    }
}
