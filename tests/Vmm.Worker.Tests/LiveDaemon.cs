using System.Net.WebSockets;
using System.Text;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon;
using Vmm.Daemon.Logging;
using Vmm.LifeCycle;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>
/// vmmd in this process over the published worker: VMs are real, confined where this host can, and asked by REST as users do.
/// </summary>
internal sealed class LiveDaemon : IAsyncDisposable
{
    private readonly List<LiveVm> _vms = [];
    private readonly DaemonOptions _options;

    private LiveDaemon(Func<DaemonOptions, DaemonOptions>? change)
    {
        DaemonOptions options = new()
        {
            StateFolder = In("state"),
            RunFolder = In("run"),
            WorkerProgram = Tree.Published("vmmd", "vmm-worker"),
            PoolSize = 0,
            Storage = [Folder, Path.Combine(Tree.Root, "tests", "guests", "build")],
            Log = new LogOptions { Level = LogLevel.Critical },
        };
        _options = change?.Invoke(options) ?? options;
        Host = DaemonHost.Build(_options);
        Client = new VmmClient(options.SocketPath);
    }

    /// <summary>A storage folder.</summary>
    internal string Folder { get; } = Directory.CreateTempSubdirectory("vmm-live-").FullName;

    internal DaemonHost Host { get; private set; }

    internal VmmClient Client { get; private set; }

    internal static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(90)).Token;

    internal static async Task<LiveDaemon> StartAsync(Func<DaemonOptions, DaemonOptions>? change = null)
    {
        LiveDaemon daemon = new(change);
        await daemon.Host.StartAsync(Soon);
        return daemon;
    }

    /// <summary>This vmmd goes, its VMs go on, and another one takes them over.</summary>
    /// <param name="between">What happens while there is none.</param>
    internal async Task RestartAsync(Action? between = null)
    {
        Client.Dispose();
        await Host.DisposeAsync();
        between?.Invoke();
        Host = DaemonHost.Build(_options);
        await Host.StartAsync(Soon);
        Client = new VmmClient(_options.SocketPath);
    }

    internal string In(string name) => Path.Combine(Folder, name);

    /// <summary>A VM with a micro-guest that runs, its console open.</summary>
    /// <param name="guest">The guest, e.g. <c>blk</c>.</param>
    /// <param name="cmdline">Its command line.</param>
    /// <param name="more">More of the spec, whole lines.</param>
    /// <param name="memory">Its memory.</param>
    internal async Task<LiveVm> RunAsync(string guest, string cmdline, string more, string memory = "64MiB")
    {
        string name = $"vm{_vms.Count}";
        string kernel = Path.Combine(Tree.Root, "tests", "guests", "build", guest + ".elf");
        await Client.CreateAsync(
            $"name: {name}\nmemory: {memory}\ncpus: 2\nboot: {{kernel: {kernel}, cmdline: \"{cmdline}\"}}\n{more}", Folder, Soon);
        LiveVm vm = new(this, name);
        _vms.Add(vm);
        await vm.StartAsync();
        return vm;
    }

    /// <summary>Waits for the end of a job, which has to be that.</summary>
    internal async Task<JobInfo> EndAsync(JobInfo begun, JobState expected = JobState.Done)
    {
        JobInfo last = begun;
        await foreach (JobInfo job in Client.WatchJobAsync(begun.Id, Soon))
        {
            last = job;
        }

        Assert.True(last.State == expected, $"{last.Kind} of {last.Target}: {last.State}: {last.Error?.Code}: {last.Error?.Detail}");
        return last;
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            foreach (LiveVm vm in _vms)
            {
                await vm.DisposeAsync();
            }
        }
        finally
        {
            Client.Dispose();
            await Host.DisposeAsync();
            Directory.Delete(Folder, recursive: true);
        }
    }
}

/// <summary>A VM of a <see cref="LiveDaemon"/>, with what its guest says.</summary>
internal sealed class LiveVm(LiveDaemon daemon, string name) : IAsyncDisposable
{
    private readonly StringBuilder _said = new();
    private WebSocket? _console;
    private Task _reading = Task.CompletedTask;

    /// <summary>What the guest said since its last start.</summary>
    internal string Said
    {
        get
        {
            lock (_said)
            {
                return _said.ToString();
            }
        }
    }

    internal string Name => name;

    internal Task<VmInfo> ShowAsync() => daemon.Client.ShowAsync(name, LiveDaemon.Soon);

    internal async Task StartAsync()
    {
        await CloseAsync();
        lock (_said)
        {
            _said.Clear();
        }

        await daemon.Client.DoAsync(name, "start", LiveDaemon.Soon);
        await ConsoleAsync();
    }

    /// <summary>Opens its console anew: it was saved and restored, say.</summary>
    internal async Task ConsoleAsync()
    {
        await CloseAsync();
        _console = await daemon.Client.ConsoleAsync(name, LiveDaemon.Soon);
        _reading = ReadAsync(_console);
    }

    /// <summary>Waits until something is so; what it stands at is told when it does not become so.</summary>
    internal async Task UntilAsync(Func<Task<bool>> isSo, string what)
    {
        for (int i = 0; i < 3000; i++)
        {
            if (await isSo())
            {
                return;
            }

            await Task.Delay(20);
        }

        VmInfo now = await ShowAsync();
        Assert.Fail($"{what}: not within a minute; {name} is {now.State}, {now.WaitsFor}, {now.LastExit}; its guest says: {Said}");
    }

    internal Task SaysAsync(string text) => UntilAsync(
        () => Said.Contains("FAIL", StringComparison.Ordinal)
            ? throw new InvalidOperationException(Said)
            : Task.FromResult(Said.Contains(text, StringComparison.Ordinal)),
        $"'{text}'");

    internal Task IsAsync(VmState state) => UntilAsync(async () => (await ShowAsync()).State == state, $"{state}");

    internal async Task TellAsync(string text) =>
        await _console!.SendAsync(Encoding.ASCII.GetBytes(text), WebSocketMessageType.Binary, endOfMessage: true, LiveDaemon.Soon);

    internal async Task<DiskStats> DiskAsync() => (await daemon.Client.StatsAsync(name, LiveDaemon.Soon)).Disks[0];

    /// <summary>The guest writes so many times from now on.</summary>
    internal async Task WritesAsync(int count = 200)
    {
        long before = (await DiskAsync()).WriteRequests;
        await UntilAsync(async () => (await DiskAsync()).WriteRequests >= before + count, $"{count} writes");
    }

    /// <summary>Events of a kind so far.</summary>
    internal async Task<IReadOnlyList<string>> EventsAsync(string kind) =>
    [
        .. (await daemon.Client.EventsOfAsync(name, LiveDaemon.Soon)).Events
            .Where(e => string.Equals(e.Kind, kind, StringComparison.Ordinal)).Select(e => e.Message ?? ""),
    ];

    /// <summary>A guest that works until it is told: it ends, and all that it read was what it wrote.</summary>
    internal async Task VerifiesAsync()
    {
        await TellAsync("q");
        await SaysAsync("RESULT blk verify=ok");
        await EndsWellAsync();
    }

    internal async Task EndsWellAsync()
    {
        await UntilAsync(async () => !(await ShowAsync()).State.IsUp(), "the end");
        WorkerExit? exit = (await ShowAsync()).LastExit;
        Assert.True(exit is { Reason: ExitReason.DebugExit, ExitCode: 0 }, $"{exit}: {Said}");
    }

    public async ValueTask DisposeAsync()
    {
        if ((await ShowAsync()).State.IsUp())
        {
            await daemon.Client.DoAsync(name, "stop", LiveDaemon.Soon);
        }

        await CloseAsync();
    }

    private async Task CloseAsync()
    {
        _console?.Dispose();
        await _reading;
    }

    private async Task ReadAsync(WebSocket console)
    {
        byte[] buffer = new byte[4096];
        try
        {
            while (await console.ReceiveAsync(buffer, CancellationToken.None) is { MessageType: WebSocketMessageType.Binary } part)
            {
                lock (_said)
                {
                    _said.Append(Encoding.ASCII.GetString(buffer, 0, part.Count));
                }
            }
        }
        catch (Exception e) when (e is WebSocketException or ObjectDisposedException or OperationCanceledException)
        {
            // its VM is over, or its test
        }
    }
}
