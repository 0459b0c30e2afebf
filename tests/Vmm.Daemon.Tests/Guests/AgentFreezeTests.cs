using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Testing;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>The real agent over ext4 on loop devices, one of them in a file of another, in a mount namespace of the test's own.</summary>
public sealed class AgentFreezeTests : IAsyncLifetime
{
    private const string Freeze = "{\"v\":1,\"freeze\":{\"seconds\":40}}", Thaw = "{\"v\":1,\"thaw\":true}";
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-freeze-").FullName;
    private Process? _mounts;
    private int _agent;

    public async Task InitializeAsync()
    {
        if (LoopFactAttribute.WhyNot is not null)
        {
            return;
        }

        _mounts = Process.Start(new ProcessStartInfo(
            "unshare",
            [
                "-m", "--propagation", "private", "bash", Path.Combine(Tree.Root, "tests/Vmm.Daemon.Tests/Guests/freeze-mounts.sh"),
                Path.Combine(Tree.Root, "deploy/guest-agent/build/vmm-guest-agent-asan"), _folder
            ])
        { RedirectStandardInput = true, RedirectStandardOutput = true, UseShellExecute = false })!;
        string ready = await _mounts.StandardOutput.ReadLineAsync().WaitAsync(s_patience) ?? "it ended";
        Assert.StartsWith("ready ", ready, StringComparison.Ordinal);
        _agent = int.Parse(ready[6..], CultureInfo.InvariantCulture);
        for (int i = 0; i < 1000 && !IsListening(); i++)
        {
            await Task.Delay(10);
        }
    }

    public async Task DisposeAsync()
    {
        if (_mounts is not null)
        {
            _mounts.StandardInput.Close();
            await _mounts.WaitForExitAsync().WaitAsync(s_patience);
            _mounts.Dispose();
        }

        Directory.Delete(_folder, recursive: true);
    }

    [LoopFact]
    public async Task Each_file_system_is_frozen_once_and_goes_on_after_the_thaw()
    {
        using Peer peer = new(_folder), other = new(_folder);
        Assert.Equal("{\"v\":1,\"error\":\"not frozen by this connection\"}", peer.Ask(Thaw));
        // a, b, c: not the bind mount, not tmpfs, not the read-only one
        Assert.Equal("{\"v\":1,\"frozen\":3,\"left\":0}", peer.Ask(Freeze));
        Task[] writers = [Write("a"), Write("a/b"), Write("c d")];
        await Task.Delay(500);
        Assert.DoesNotContain(writers, w => w.IsCompleted);
        await Write("ro/../small"); // which is no disk
        Assert.StartsWith("{\"v\":1,\"nodes\":", other.Ask("{\"v\":1,\"get\":\"memory\"}"), StringComparison.Ordinal);
        Assert.Equal("{\"v\":1,\"error\":\"frozen already\"}", other.Ask(Freeze));
        Assert.Equal("{\"v\":1,\"error\":\"not frozen by this connection\"}", other.Ask(Thaw));
        Assert.Equal("{\"v\":1,\"thawed\":3,\"late\":false}", peer.Ask(Thaw));
        await Task.WhenAll(writers).WaitAsync(s_patience);
    }

    [LoopFact]
    public async Task The_time_limit_thaws()
    {
        using Peer peer = new(_folder);
        Assert.Equal("{\"v\":1,\"frozen\":3,\"left\":0}", peer.Ask(Freeze.Replace("40", "1", StringComparison.Ordinal)));
        await Task.WhenAll(Write("a"), Write("a/b"), Write("c d")).WaitAsync(s_patience);
        Assert.Equal("{\"v\":1,\"thawed\":3,\"late\":true}", peer.Ask(Thaw));
        Assert.Equal("{\"v\":1,\"error\":\"not frozen by this connection\"}", peer.Ask(Thaw));
    }

    /// <summary>
    /// The agent itself hangs, in the kernel: what lies in a file of a file system that somebody else froze is not frozen before that is
    /// thawed. What it froze before goes on all the same when the time is over.
    /// </summary>
    [LoopFact]
    public async Task The_time_limit_thaws_also_while_the_agent_waits_for_a_disk()
    {
        using Peer peer = new(_folder);
        await Nsenter("fsfreeze", "-f", Path.Combine(_folder, "a"));
        Task<string> answer = Task.Factory.StartNew(
            () => peer.Ask(Freeze.Replace("40", "3", StringComparison.Ordinal)), TaskCreationOptions.LongRunning);
        try
        {
            await AgentHangsAsync(); // now "c d" is frozen, or was
            await Write("c d").WaitAsync(s_patience);
            Assert.False(answer.IsCompleted, "the agent did not wait for a disk");
        }
        finally
        {
            await Nsenter("fsfreeze", "-u", Path.Combine(_folder, "a"));
        }

        Assert.Contains("/a/b: more than 3 seconds", await answer.WaitAsync(s_patience), StringComparison.Ordinal);
        await Task.WhenAll(Write("a"), Write("a/b"), Write("c d")).WaitAsync(s_patience);
        Assert.Equal("{\"v\":1,\"frozen\":3,\"left\":0}", peer.Ask(Freeze));
        Assert.Equal("{\"v\":1,\"thawed\":3,\"late\":false}", peer.Ask(Thaw));
    }

    [LoopTheory]
    [InlineData("agent")]
    [InlineData("watch")]
    [InlineData("connection")]
    public async Task What_dies_thaws(string who)
    {
        using Peer peer = new(_folder);
        Assert.Equal("{\"v\":1,\"frozen\":3,\"left\":0}", peer.Ask(Freeze));
        Task[] writers = [Write("a"), Write("a/b"), Write("c d")];
        await Task.Delay(300);
        Assert.DoesNotContain(writers, w => w.IsCompleted);
        if (who is "connection")
        {
            peer.Dispose();
        }
        else
        {
            int watch = int.Parse(
                await File.ReadAllTextAsync($"/proc/{_agent}/task/{_agent}/children"), CultureInfo.InvariantCulture);
            Process.GetProcessById(who is "agent" ? _agent : watch).Kill();
        }

        await Task.WhenAll(writers).WaitAsync(s_patience);
        if (who is "watch")
        {
            Assert.Equal("{\"v\":1,\"thawed\":3,\"late\":true}", peer.Ask(Thaw));
            Assert.Equal("{\"v\":1,\"frozen\":3,\"left\":0}", peer.Ask(Freeze));
            Assert.Equal("{\"v\":1,\"thawed\":3,\"late\":false}", peer.Ask(Thaw));
        }
    }

    [LoopFact]
    public async Task What_cannot_be_frozen_is_named_and_the_rest_goes_on()
    {
        string mounts = Path.Combine(_folder, "root/proc/self");
        File.Copy(Path.Combine(mounts, "all"), Path.Combine(mounts, "mountinfo"), overwrite: true);
        await File.WriteAllBytesAsync(Inside("e/x"), RandomBytes(16 << 20)); // into memory: its image has 3 MiB
        using Peer peer = new(_folder);
        string answer = peer.Ask(Freeze);
        Assert.StartsWith("{\"v\":1,\"error\":\"cannot freeze ", answer, StringComparison.Ordinal);
        Assert.Contains("/e: Input/output error", answer, StringComparison.Ordinal);
        await Task.WhenAll(Write("a"), Write("a/b"), Write("c d")).WaitAsync(s_patience);
        Assert.Equal("{\"v\":1,\"error\":\"not frozen by this connection\"}", peer.Ask(Thaw));
    }

    [LoopFact]
    public async Task What_is_hidden_or_frozen_by_somebody_else_is_left_and_counted()
    {
        string mounts = Path.Combine(_folder, "root/proc/self");
        await File.WriteAllLinesAsync(
            Path.Combine(mounts, "mountinfo"),
            (await File.ReadAllLinesAsync(Path.Combine(mounts, "all"))).Where(l => !l.Contains("/e ", StringComparison.Ordinal)));
        await Nsenter("fsfreeze", "-f", Path.Combine(_folder, "c d"));
        using Peer peer = new(_folder);
        Assert.Equal("{\"v\":1,\"frozen\":2,\"left\":2}", peer.Ask(Freeze));
        Assert.Equal("{\"v\":1,\"thawed\":2,\"late\":false}", peer.Ask(Thaw));
        Task writer = Write("c d");
        await Task.Delay(300);
        Assert.False(writer.IsCompleted); // it is theirs
        await Nsenter("fsfreeze", "-u", Path.Combine(_folder, "c d"));
        await writer.WaitAsync(s_patience);
        // Somebody thaws what we froze: the snapshot cannot rely on it.
        Assert.Equal("{\"v\":1,\"frozen\":3,\"left\":1}", peer.Ask(Freeze));
        await Nsenter("fsfreeze", "-u", Path.Combine(_folder, "c d"));
        Assert.Equal("{\"v\":1,\"thawed\":3,\"late\":true}", peer.Ask(Thaw));
    }

    [LoopFact]
    public async Task The_daemon_freezes_and_thaws_with_the_real_agent()
    {
        string socket = Path.Combine(_folder, "v");
        await using FakeGuest guest = new(socket, agent: Path.Combine(_folder, "agent"));
        GuestFreeze freeze = await GuestFreeze.BeginAsync(socket, TimeSpan.FromSeconds(40), default);
        Task writer = Write("a/b");
        await Task.Delay(300);
        Assert.False(writer.IsCompleted);
        Assert.Equal(new GuestQuiesce(QuiesceState.Frozen, 3), await freeze.EndAsync());
        await writer.WaitAsync(s_patience);
    }

    private static byte[] RandomBytes(int count)
    {
        byte[] bytes = new byte[count];
        new Random(1).NextBytes(bytes);
        return bytes;
    }

    private bool IsListening()
    {
        try
        {
            new Peer(_folder).Dispose();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private string Inside(string path) => $"/proc/{_mounts!.Id}/root{_folder}/{path}";

    private Task Write(string place) => Task.Factory.StartNew(
        () => File.AppendAllText(Inside(place + "/written"), "x"), default, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    // In the kernel, and for longer than a disk takes.
    private async Task AgentHangsAsync()
    {
        for (int looks = 0, hangs = 0; looks < 1500 && hangs < 20; looks++)
        {
            string stat = await File.ReadAllTextAsync($"/proc/{_agent}/stat");
            hangs = stat.Contains(") D ", StringComparison.Ordinal) ? hangs + 1 : 0;
            await Task.Delay(20);
        }
    }

    private async Task Nsenter(params string[] command)
    {
        using Process process = Process.Start("nsenter", ["-t", $"{_mounts!.Id}", "-m", .. command]);
        await process.WaitForExitAsync().WaitAsync(s_patience);
        Assert.Equal(0, process.ExitCode);
    }

    private sealed class Peer : IDisposable
    {
        private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        {
            ReceiveTimeout = 100_000
        };

        internal Peer(string folder) => _socket.Connect(new UnixDomainSocketEndPoint(Path.Combine(folder, "agent")));

        public void Dispose() => _socket.Dispose();

        internal string Ask(string question)
        {
            _socket.Send(Encoding.ASCII.GetBytes(question + "\n"));
            byte[] buffer = new byte[65536];
            return Encoding.ASCII.GetString(buffer, 0, _socket.Receive(buffer)).TrimEnd('\n');
        }
    }
}
