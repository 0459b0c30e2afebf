using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests.Qemu;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>
/// The real qemu-ga program on a socket of this test's, with every command switched off that could change this machine. It is never asked
/// to freeze or shut down.
/// </summary>
public sealed class QemuGaTests : IAsyncLifetime
{
    private const string SwitchedOff = "guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw,guest-shutdown,"
        + "guest-suspend-disk,guest-suspend-ram,guest-suspend-hybrid,guest-set-time,guest-fstrim,guest-set-vcpus,guest-set-user-password,"
        + "guest-set-memory-blocks,guest-file-open,guest-ssh-add-authorized-keys,guest-ssh-remove-authorized-keys";

    private static readonly CancellationToken s_none = CancellationToken.None;
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-qga-").FullName;
    private Process? _program;

    private string SocketPath => Path.Combine(_folder, "s");

    public async Task InitializeAsync()
    {
        if (QemuGaFactAttribute.Program is not { } program)
        {
            return;
        }

        _program = Process.Start(new ProcessStartInfo(program,
        [
            "-m", "unix-listen", "-p", SocketPath, "-t", _folder, "-f", Path.Combine(_folder, "pid"), "-l", Path.Combine(_folder, "log"),
            "-b", SwitchedOff,
        ])
        { UseShellExecute = false })!;
        for (int i = 0; i < 1000 && !File.Exists(SocketPath); i++)
        {
            await Task.Delay(10);
        }
    }

    public async Task DisposeAsync()
    {
        if (_program is not null)
        {
            _program.Kill();
            await _program.WaitForExitAsync();
            _program.Dispose();
        }

        Directory.Delete(_folder, recursive: true);
    }

    [QemuGaFact]
    public async Task The_real_agent_tells_of_its_machine()
    {
        using QemuAgent agent = await OpenAsync();
        GuestFacts facts = await QemuFacts.AskAsync(agent, s_none);
        Assert.Equal(Environment.MachineName, facts.HostName);
        Assert.NotEmpty(facts.Agent!);
        Assert.Contains(facts.Interfaces, each => each.Name is "lo" && each.Addresses.Contains("127.0.0.1/8"));
        Assert.NotNull(facts.System?.Kernel);
        GuestAgentInfo info = await QemuFacts.AgentAsync(agent, s_none);
        Assert.StartsWith("qemu-ga ", info.Version, StringComparison.Ordinal);
        Assert.False(info.Freeze); // switched off
    }

    [QemuGaFact]
    public async Task The_real_agent_carries_out_a_command_and_refuses_what_is_switched_off()
    {
        using QemuAgent agent = await OpenAsync();
        QemuProcess process = await agent.AskAsync("guest-exec", QemuJson.Default.QemuProcess, s_none, json =>
        {
            json.WriteString("path", "cat");
            json.WriteBase64String("input-data", "through the guest\n"u8);
            json.WriteBoolean("capture-output", value: true);
        });
        QemuProcessStatus status;
        do
        {
            await Task.Delay(20);
            status = await agent.AskAsync(
                "guest-exec-status", QemuJson.Default.QemuProcessStatus, s_none, json => json.WriteNumber("pid", process.Pid));
        }
        while (!status.Exited);
        Assert.Equal((0, "through the guest\n"), (status.Exitcode, Encoding.UTF8.GetString(status.OutData!)));
        QemuAgentException refused = await Assert.ThrowsAsync<QemuAgentException>(
            () => agent.AskAsync("guest-fsfreeze-freeze", QemuJson.Default.Int64, s_none));
        Assert.Equal(QemuAgentFault.Refused, refused.Fault);
    }

    [QemuGaFact]
    public async Task The_real_agent_is_found_again_behind_a_conversation_that_was_cut_off_in_the_middle_of_a_line()
    {
        Socket socket = await ConnectAsync();
        using (NetworkStream cut = new(socket, ownsSocket: true))
        {
            await cut.WriteAsync("{\"execute\":\"guest-info\"}\n{\"execute\":\"guest-pi"u8.ToArray());
            using QemuAgent agent = await QemuAgent.OpenAsync(cut, s_none).WaitAsync(TimeSpan.FromSeconds(30));
            Assert.NotNull((await agent.AskAsync("guest-info", QemuJson.Default.QemuInfo, s_none)).Version);
        }

        using QemuAgent next = await OpenAsync();
        Assert.NotEmpty((await QemuFacts.AskAsync(next, s_none)).Interfaces);
    }

    private async Task<QemuAgent> OpenAsync() =>
        await QemuAgent.OpenAsync(new NetworkStream(await ConnectAsync(), ownsSocket: true), s_none).WaitAsync(TimeSpan.FromSeconds(30));

    private async Task<Socket> ConnectAsync()
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(SocketPath));
        return socket;
    }
}

/// <summary>A test with the program of Debian's qemu-guest-agent; skipped, with the reason, where it is not.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class QemuGaFactAttribute : FactAttribute
{
    /// <summary>Where it is; null: nowhere.</summary>
    public static string? Program { get; } =
        ((string?[])[Environment.GetEnvironmentVariable("VMM_QEMU_GA"), "/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"])
        .FirstOrDefault(File.Exists);

    public override string? Skip
    {
        get => Program is null ? "no qemu-ga: apt install qemu-guest-agent" : base.Skip;
        set => base.Skip = value;
    }
}
