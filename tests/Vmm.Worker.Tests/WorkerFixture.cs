using System.Text;
using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>A launcher over a folder of its own; ends every worker that it started and looks that nothing stays.</summary>
internal sealed class WorkerFixture : IAsyncDisposable
{
    private readonly List<IWorker> _workers = [];

    internal WorkerFixture(int pool = 0, uint? firstUser = null, Func<WorkerLauncherOptions, WorkerLauncherOptions>? change = null)
    {
        Options = new WorkerLauncherOptions
        {
            Directory = Folder,
            Program = Tree.Published("vmmd", "vmm-worker"),
            PoolSize = pool,
            FirstUserId = firstUser,
            Disks = new DiskAccess(new StorageFolders(["/"], ["/dev"])),
            Isolated = Environment.IsPrivilegedProcess,
        };
        Options = change?.Invoke(Options) ?? Options;
        Launcher = new WorkerLauncher(Options);
        Launcher.StartAsync(CancellationToken.None).GetAwaiter().GetResult();
    }

    internal string Folder { get; } = Directory.CreateTempSubdirectory("vmm-w-").FullName;

    internal WorkerLauncherOptions Options { get; }

    internal WorkerLauncher Launcher { get; set; }

    internal static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(60)).Token;

    internal static VmSpec SpecOf(string guest, string cmdline = "") =>
        new()
        {
            Memory = ByteSize.MiB(64),
            Boot = new BootSpec { Kernel = Path.Combine(Tree.Root, "tests", "guests", "build", guest + ".elf"), Cmdline = cmdline }
        };

    internal async Task<IWorker> LaunchAsync(VmSpec spec, string? id = null)
    {
        IWorker worker = await Launcher.LaunchAsync(id ?? Guid.NewGuid().ToString(), spec, null, Soon);
        _workers.Add(worker);
        return worker;
    }

    /// <summary>Ends this worker, too.</summary>
    internal IWorker Own(IWorker worker)
    {
        _workers.Add(worker);
        return worker;
    }

    internal async Task<IReadOnlyList<IWorker>> RestartDaemonAsync()
    {
        foreach (IWorker worker in _workers)
        {
            await worker.DisposeAsync();
        }

        _workers.Clear();
        await Launcher.DisposeAsync();
        Launcher = new WorkerLauncher(Options);
        await Launcher.StartAsync(CancellationToken.None);
        IReadOnlyList<IWorker> adopted = await Launcher.AdoptAsync(Soon);
        _workers.AddRange(adopted);
        return adopted;
    }

    /// <summary>Everything a console says until a text came.</summary>
    internal static async Task<string> ReadUntilAsync(Stream console, string text)
    {
        StringBuilder said = new();
        byte[] buffer = new byte[4096];
        while (!said.ToString().Contains(text, StringComparison.Ordinal))
        {
            int n = await console.ReadAsync(buffer, Soon);
            if (n == 0)
            {
                throw new InvalidOperationException($"the console ended before \"{text}\": {said}");
            }

            said.Append(Encoding.ASCII.GetString(buffer, 0, n));
        }

        return said.ToString();
    }

    internal static bool Alive(int pid) =>
        Directory.Exists($"/proc/{pid}") && !File.ReadAllText($"/proc/{pid}/stat").Contains(") Z ", StringComparison.Ordinal);

    public async ValueTask DisposeAsync()
    {
        int[] pids = [.. _workers.Select(w => w.ProcessId).Where(p => p > 0)];
        foreach (IWorker worker in _workers)
        {
            await worker.StopAsync(Soon);
            await worker.DisposeAsync();
        }

        await Launcher.DisposeAsync();
        string[] left = Directory.GetFiles(Folder);
        Directory.Delete(Folder, recursive: true);
        Assert.Empty(left);
        Assert.DoesNotContain(pids, Alive);
    }
}
