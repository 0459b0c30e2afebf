using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Testing;

namespace Vmm.Daemon.Tests;

/// <summary>
/// The generic host: the order of its parts, what the service manager hears, and how the published program begins and ends.
/// </summary>
public sealed class HostingTests : IDisposable
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmd-h-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_start_that_fails_leaves_folders_socket_and_workers_to_the_next()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        await daemon.StopDaemonAsync();
        Assert.False(File.Exists(daemon.Options.SocketPath));
        using CancellationTokenSource over = new();
        await over.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => DaemonHost.StartAsync(daemon.Options, daemon.Workers, over.Token));
        await daemon.StartDaemonAsync();
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
        Assert.Single(daemon.Workers.Alive);
    }

    [Fact]
    public async Task The_socket_is_the_owners_and_the_groups()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Assert.Equal(
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite,
            File.GetUnixFileMode(daemon.Options.SocketPath));
    }

    [Fact]
    public async Task A_client_that_stays_does_not_hold_the_end_up()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using CancellationTokenSource leave = new(TimeSpan.FromSeconds(60));
        List<DaemonEvent> heard = [];
        Task listener = Task.Run(async () =>
        {
            await foreach (DaemonEvent happened in daemon.Client.EventsAsync(null, leave.Token))
            {
                heard.Add(happened);
            }
        });
        for (int i = 0; heard.Count == 0 && !leave.IsCancellationRequested; i++) // until it listens
        {
            await daemon.CreateAsync("web" + i);
            await Task.Delay(50, s_none);
        }

        Assert.NotEmpty(heard);
        await daemon.Host.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(60));
        await daemon.StartDaemonAsync();
        await Record.ExceptionAsync(() => listener); // however it ended
    }

    [Fact]
    public async Task The_service_manager_hears_ready_alive_and_stopping_in_this_order()
    {
        string notify = Path.Combine(_folder, "notify");
        using Socket manager = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        manager.Bind(new UnixDomainSocketEndPoint(notify));
        manager.ReceiveTimeout = 60_000;
        using Process vmmd = Start(("NOTIFY_SOCKET", notify), ("WATCHDOG_USEC", "400000"));
        List<string> heard = [];
        while (!heard.Contains("READY=1", StringComparer.Ordinal) || heard.Count(h => h is "WATCHDOG=1") < 3)
        {
            heard.Add(Next());
        }

        using (VmmClient client = new(Path.Combine(_folder, "run", "vmmd.sock")))
        {
            await client.ListAsync(s_none);
        }

        Signal(vmmd, "TERM");
        while (heard[^1] is not "STOPPING=1")
        {
            heard.Add(Next());
        }

        Assert.Equal(0, await EndAsync(vmmd));
        Assert.Equal(["READY=1", "STOPPING=1"], heard.Where(h => h is not "WATCHDOG=1"));

        string Next()
        {
            byte[] text = new byte[256];
            return Encoding.UTF8.GetString(text, 0, manager.Receive(text));
        }
    }

    [Theory]
    [InlineData("TERM")]
    [InlineData("INT")]
    public async Task A_signal_ends_it_with_0_and_its_socket_is_gone(string signal)
    {
        using Process vmmd = Start();
        string socket = Path.Combine(_folder, "run", "vmmd.sock");
        Assert.True(SpinWait.SpinUntil(() => File.Exists(socket), TimeSpan.FromSeconds(60)), "no socket");
        Signal(vmmd, "HUP"); // settings are read again, and nothing ends
        Signal(vmmd, signal);
        Assert.Equal(0, await EndAsync(vmmd));
        Assert.False(File.Exists(socket));
    }

    [Theory]
    [InlineData(2, "vmmd: unknown option --nonsense; vmmd --help lists them\n", "--nonsense", "1")]
    [InlineData(2, "vmmd: --pool 65: expected 0 to 64\n", "--pool", "65")]
    [InlineData(2, "vmmd: --start-timeout 9: expected 10 to 3600 seconds\n", "--start-timeout", "9")]
    [InlineData(1, "vmmd: Could not find a part of the path '/proc/nowhere/vmmd.log'.\n", "--log-file", "/proc/nowhere/vmmd.log")]
    public async Task What_is_wrong_at_the_start_is_one_line_and_an_exit_code(int code, string said, params string[] arguments)
    {
        using Process vmmd = Start(arguments);
        Task<string> error = vmmd.StandardError.ReadToEndAsync();
        Assert.Equal(code, await EndAsync(vmmd));
        Assert.Equal(said, await error);
    }

    [Fact]
    public async Task An_inventory_that_is_none_is_one_line_and_exit_1()
    {
        Directory.CreateDirectory(Path.Combine(_folder, "state"));
        await File.WriteAllTextAsync(Path.Combine(_folder, "state", "inventory.db"), new string('x', 8192));
        using Process vmmd = Start();
        Task<string> error = vmmd.StandardError.ReadToEndAsync();
        Assert.Equal(1, await EndAsync(vmmd));
        string line = Assert.Single((await error).Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.StartsWith("vmmd: ", line, StringComparison.Ordinal);
        Assert.Contains("inventory.db", line, StringComparison.Ordinal);
    }

    private Process Start(params (string Name, string Value)[] environment) => Start([], environment);

    private Process Start(string[] arguments, params (string Name, string Value)[] environment)
    {
        ProcessStartInfo start = new(
            Tree.Published("vmmd", "vmmd"),
            ["--state", Path.Combine(_folder, "state"), "--run", Path.Combine(_folder, "run"), "--pool", "0", .. arguments])
        {
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        return Process.Start(start)!;
    }

    private static void Signal(Process process, string name)
    {
        using Process kill = Process.Start("kill", ["-" + name, process.Id.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
    }

    private static async Task<int> EndAsync(Process process)
    {
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        try
        {
            await process.WaitForExitAsync(deadline.Token);
            return process.ExitCode;
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill();
            }
        }
    }
}
