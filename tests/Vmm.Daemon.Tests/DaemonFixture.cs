using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Logging;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>
/// A real daemon on a unix socket in a folder of its own, with fake workers; it can be killed and started again over the same state.
/// </summary>
internal sealed class DaemonFixture : IAsyncDisposable
{
    private DaemonHost? _host;

    private DaemonFixture(Func<string, DaemonOptions>? options)
    {
        DaemonOptions wanted = options?.Invoke(Folder) ?? new DaemonOptions();
        Options = wanted with
        {
            StateFolder = Path.Combine(Folder, "state"),
            RunFolder = Path.Combine(Folder, "run"),
            Storage = wanted.Storage ?? [Folder],
            NetworkHost = Networks,
            Log = wanted.Log.Equals(new LogOptions()) ? new LogOptions { Level = LogLevel.Critical } : wanted.Log
        };
        File.WriteAllText(Path.Combine(Folder, "kernel"), "not looked at by a fake worker");
    }

    internal string Folder { get; } = Directory.CreateTempSubdirectory("vmmd-").FullName;

    internal DaemonOptions Options { get; }

    internal FakeWorkers Workers { get; } = new();

    internal FakeNetworks Networks { get; } = new();

    internal VmmClient Client { get; private set; } = null!;

    internal DaemonHost Host => _host!;

    internal static async Task<DaemonFixture> StartAsync(Func<string, DaemonOptions>? options = null)
    {
        DaemonFixture fixture = new(options);
        try
        {
            await fixture.StartDaemonAsync();
            return fixture;
        }
        catch
        {
            Directory.Delete(fixture.Folder, recursive: true);
            throw;
        }
    }

    internal string Yaml(string name, string more = "") => $"name: {name}\nboot:\n  kernel: kernel\n{more}";

    internal Task<VmInfo> CreateAsync(string name, string more = "") =>
        Client.CreateAsync(Yaml(name, more), Folder, CancellationToken.None);

    /// <summary>The daemon goes without a word to its workers, and a new one comes.</summary>
    internal async Task RestartAsync()
    {
        await StopDaemonAsync();
        await StartDaemonAsync();
    }

    internal async Task StopDaemonAsync()
    {
        Client.Dispose();
        await _host!.DisposeAsync();
    }

    internal async Task StartDaemonAsync()
    {
        _host = await DaemonHost.StartAsync(Options, Workers, CancellationToken.None);
        Client = new VmmClient(Options.SocketPath);
    }

    /// <summary>A path that the typed client does not know.</summary>
    internal async Task<string> GetAsync(string path)
    {
        using SocketsHttpHandler handler = new()
        {
            ConnectCallback = async (_, cancellation) =>
            {
                Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(Options.SocketPath), cancellation);
                return new NetworkStream(socket, ownsSocket: true);
            },
        };
        using HttpClient http = new(handler);
        return await http.GetStringAsync(new Uri("http://vmmd" + path));
    }

    internal static async Task<Problem> RefusedAsync(Func<Task> request) => (await Assert.ThrowsAsync<VmmApiException>(request)).Problem;

    internal async Task<VmState> StateSoonAsync(string name, VmState wanted)
    {
        for (int i = 0; i < 500; i++)
        {
            if ((await Client.ShowAsync(name, CancellationToken.None)).State == wanted)
            {
                return wanted;
            }

            await Task.Delay(10);
        }

        return (await Client.ShowAsync(name, CancellationToken.None)).State;
    }

    /// <summary>Waits until that is so.</summary>
    internal static Task UntilAsync(Func<bool> done) => UntilAsync(() => Task.FromResult(done()));

    /// <inheritdoc cref="UntilAsync(Func{bool})"/>
    internal static async Task UntilAsync(Func<Task<bool>> done)
    {
        for (int i = 0; i < 2400 && !await done(); i++)
        {
            await Task.Delay(25);
        }

        Assert.True(await done());
    }

    /// <summary>The job when it is over.</summary>
    internal async Task<JobInfo> EndAsync(JobInfo job)
    {
        for (int i = 0; i < 2400 && job.State == JobState.Running; i++)
        {
            await Task.Delay(25);
            job = await Client.JobAsync(job.Id, CancellationToken.None);
        }

        return job;
    }

    /// <summary>The job when it has come so far, or is over.</summary>
    internal async Task<JobInfo> ProgressAsync(JobInfo job, double least)
    {
        for (int i = 0; i < 2400 && job.State == JobState.Running && job.Progress < least; i++)
        {
            await Task.Delay(25);
            job = await Client.JobAsync(job.Id, CancellationToken.None);
        }

        return job;
    }

    /// <summary>What the inventory keeps of the only VM.</summary>
    internal VmRecord Record()
    {
        using VmInventory inventory = VmInventory.Open(Path.Combine(Options.StateFolder, "inventory.db"));
        return inventory.Vms.All().Single();
    }

    /// <summary>Changes that, as if a daemon that died had left it so.</summary>
    internal void LeaveRecord(Func<VmRecord, VmRecord> change)
    {
        using VmInventory inventory = VmInventory.Open(Path.Combine(Options.StateFolder, "inventory.db"));
        inventory.Vms.Update(change(inventory.Vms.All().Single()));
    }

    public async ValueTask DisposeAsync()
    {
        await StopDaemonAsync();
        Directory.Delete(Folder, recursive: true);
    }
}
