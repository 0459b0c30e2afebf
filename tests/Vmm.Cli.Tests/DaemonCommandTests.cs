using Vmm.Cpu;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon;
using Vmm.Daemon.Tests;
using Vmm.LifeCycle;

namespace Vmm.Cli.Tests;

/// <summary>vmmctl against a real daemon on a unix socket, with workers that only pretend.</summary>
[Collection("environment")] // one test changes TMPDIR
public sealed class DaemonCommandTests : IAsyncLifetime, IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl-").FullName;
    private readonly FakeWorkers _workers = new();
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();
    private DaemonHost _daemon = null!;
    private string _socket = "";

    public async Task InitializeAsync()
    {
        DaemonOptions options = new()
        {
            StateFolder = Path.Combine(_folder, "state"),
            RunFolder = Path.Combine(_folder, "run"),
            Storage = [_folder],
            Log = new Vmm.Daemon.Logging.LogOptions { Level = LogLevel.Critical }
        };
        await File.WriteAllTextAsync(PathOf("kernel"), "k");
        await File.WriteAllTextAsync(PathOf("web1.yaml"), "name: web1\nmemory: 64MiB\nboot: {kernel: kernel}\n");
        _daemon = await DaemonHost.StartAsync(options, _workers, CancellationToken.None);
        _socket = options.SocketPath;
    }

    public async Task DisposeAsync()
    {
        await _daemon.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    public void Dispose()
    {
        _out.Dispose();
        _error.Dispose();
    }

    private string PathOf(string name) => Path.Combine(_folder, name);

    /// <summary>The exit code; what was printed is in the writers, of this call alone.</summary>
    private int Execute(params string[] args)
    {
        _out.GetStringBuilder().Clear();
        _error.GetStringBuilder().Clear();
        return new Application(() => KvmSurvey.None("nobody asks"), _out, _error).Execute(["--host", "unix://" + _socket, .. args]);
    }

    private void Create() => Assert.Equal(0, Execute("vm", "create", "-f", PathOf("web1.yaml")));

    [Fact]
    public void A_spec_is_mapped_onto_the_host_by_host_fit()
    {
        File.WriteAllText(PathOf("far.yaml"), "boot: {kernel: kernel}\nnuma: {vnodes: [{cpus: 0, memory: 64MiB, hostNodes: 60}]}\n");
        Assert.Equal(0, Execute("host", "fit", PathOf("far.yaml")));
        Assert.Matches("(?m)^0 +moved +60 +[0-9]+ +moved to host node [0-9]+: host node 60 does not exist here\\s*$", _out.ToString());
        Assert.Contains("distances: 100 %: the spec gives no distances", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("-o", "json", "host", "fit", PathOf("far.yaml")));
        Assert.Contains("\"outcome\":\"moved\"", _out.ToString().Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        File.WriteAllText(PathOf("far.yaml"), "boot: {kernel: kernel}\nnuma: {vnodes: [{cpus: 0, memory: 1TiB, hostNodes: 60}]}\n");
        Assert.Equal(1, Execute("host", "fit", PathOf("far.yaml")));
        Assert.Contains("no-room", _out.ToString(), StringComparison.Ordinal);
        File.WriteAllText(PathOf("far.yaml"), "boot: {kernel: kernel}\nnuma: {fit: best}\n");
        Assert.Equal(2, Execute("host", "fit", PathOf("far.yaml")));
        Assert.Contains("far.yaml:2", _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void What_the_host_takes_from_whom_is_shown()
    {
        File.WriteAllText(PathOf("web1.yaml"), "name: web1\nmemory: {size: 1GiB, resident: 512MiB}\nboot: {kernel: kernel}\n");
        File.WriteAllText(PathOf("all1.yaml"), "name: all1\nmemory: 1GiB\nboot: {kernel: kernel}\n");
        Create();
        Assert.Equal(0, Execute("vm", "create", "-f", PathOf("all1.yaml")));
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal(0, Execute("vm", "start", "all1"));
        Assert.Equal(0, Execute("vm", "memory", "all1"));
        Assert.Contains("without a resident limit nothing is taken from it", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "memory", "web1"));
        Assert.Contains(
            "limit: 512 MiB, as its spec says; at least 256 MiB when the host is short", _out.ToString(), StringComparison.Ordinal);
        _workers.Alive.Values.Single(worker => worker.LimitInForce is not null).Lies = said => said with
        {
            LimitBytes = 300 << 20,
            Reason = "the host has 1 MiB available",
            Since = DateTimeOffset.UnixEpoch.AddDays(1),
        };
        Assert.Equal(0, Execute("vm", "memory", "web1"));
        Assert.Matches("limit: 300 MiB in force since 1970-01-0[12] .*, 512 MiB in its spec, at least 256 MiB: the host has 1 MiB",
            _out.ToString());
        Assert.Equal(0, Execute("host", "pressure"));
        Assert.Contains("pressure loop: off", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("-o", "json", "host", "pressure"));
        Assert.Contains("\"enabled\":false", _out.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_vm_is_created_listed_started_stopped_and_forgotten()
    {
        Create();
        Assert.Contains("web1 is defined", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "list"));
        Assert.Matches("(?m)^web1 +defined +1 +64 MiB", _out.ToString());
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal("web1 is running\n", _out.ToString());
        Assert.Equal(0, Execute("-o", "json", "vm", "show", "web1"));
        using (JsonDocument shown = JsonDocument.Parse(_out.ToString()))
        {
            Assert.Equal("web1", shown.RootElement.GetProperty("name").GetString());
        }

        Assert.Equal(0, Execute("complete", "vm"));
        Assert.Equal("web1\n", _out.ToString());
        Assert.Equal(0, Execute("vm", "stop", "web1"));
        Assert.Equal(0, Execute("vm", "spec", "web1"));
        Assert.Contains("kernel: kernel", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "logs", "web1"));
        Assert.Matches("web1 +created", _out.ToString());
        Assert.Matches("web1 +state running", _out.ToString());
        Assert.Equal(0, Execute("vm", "delete", "web1"));
        Assert.Equal(1, Execute("vm", "show", "web1"));
        Assert.StartsWith("vmmctl: ", _error.ToString(), StringComparison.Ordinal);
        Assert.Contains("web1", _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_vm_over_an_image_gets_a_network_an_agent_and_what_its_first_start_needs()
    {
        File.WriteAllText(PathOf("key.pub"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExample ann@host\n");
        File.WriteAllText(PathOf("user"), "#cloud-config\nhidden: 4711\n");
        using (FileStream disk = File.Create(PathOf("debian-13.img")))
        {
            disk.SetLength(1 << 20);
        }

        Assert.True(Execute("image", "import", PathOf("debian-13.img")) == 0, _error.ToString());
        string[] create =
        [
            "vm", "create", "db1", "--image", "debian-13", "--cpus", "2", "--memory", "2GiB", "--net", "user", "--publish", "2222:22",
            "--ssh-key", PathOf("key.pub"), "--user-data", PathOf("user"), "--hostname", "db1.example", "--seed", "once",
        ];
        Assert.True(Execute(create) == 0, _error.ToString());
        Assert.Equal("db1 is defined\n", _out.ToString());
        Assert.Equal(0, Execute("vm", "spec", "db1"));
        string spec = _out.ToString();
        foreach (string part in (string[])["cpus: 2", "guestAgent: true", "2222:22", "machines/db1/disk0.qcow2"])
        {
            Assert.Contains(part, spec, StringComparison.Ordinal);
        }

        Assert.True(Vmm.Spec.SpecReader.Read(spec, "spec", _folder).Boot.IsFirmware);
        Assert.DoesNotContain("4711", spec, StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "seed", "db1"));
        Assert.Matches("(?m)^seed: +ready for the next start\\s*$", _out.ToString());
        Assert.Matches("(?m)^kept: +once\\s*$", _out.ToString());
        Assert.Equal(0, Execute([.. create, "--start"])); // the same again changes nothing
        Assert.Equal(0, Execute("vm", "seed", "db1", "-o", "json"));
        Assert.Contains("\"state\":\"Used\"", _out.ToString().Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.NotEqual(0, Execute("vm", "seed", "db1", "--remove"));
        Assert.Contains("stop it first", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "stop", "db1"));
        Assert.Equal(0, Execute("vm", "seed", "db1", "--hostname", "other"));
        Assert.Equal(0, Execute("vm", "seed", "db1", "--remove"));
        Assert.Matches("(?m)^seed: +none\\s*$", _out.ToString());
        foreach ((string[] args, string why) in new (string[], string)[]
        {
            (["vm", "create", "x", "--image", "debian-13", "--seed", "once"], "say what is in it"),
            (["vm", "seed", "db1", "--hostname", "a", "--seed", "twice"], "--seed twice: expected once or keep"),
            (["vm", "seed", "db1", "--hostname", "a", "--remove"], "--remove"), (["vm", "seed", "db1", "--hostname", "a b"], "--hostname"),
            (["vm", "create", "x", "--image", "debian-13", "--ssh-key", PathOf("none")], "does not exist"),
            (["vm", "create", "x", "--net", "bogus=1"], "--net bogus=1"), (["vm", "create", "x", "--publish", "4711"], "publish"),
            (["vm", "create", "-f", PathOf("web1.yaml"), "--net", "user"], "beside -f"),
        })
        {
            Assert.Equal(2, Execute(args));
            Assert.Contains(why, _error.ToString(), StringComparison.Ordinal);
            Assert.Equal(1, Execute("vm", "show", "x"));
        }

        Assert.Equal(0, Execute("vm", "create", "-f", PathOf("web1.yaml"), "--hostname", "a"));
        Assert.Equal(0, Execute("vm", "seed", "web1"));
        Assert.Matches("(?m)^kept: +keep\\s*$", _out.ToString());
    }

    [Fact]
    public void A_spec_that_is_not_sound_is_bad_usage_with_every_problem()
    {
        File.WriteAllText(PathOf("bad.yaml"), "name: web1\ncpus: 0\nmemori: 1GiB\nboot: {kernel: kernel}\n");
        Assert.Equal(2, Execute("vm", "create", "-f", PathOf("bad.yaml")));
        Assert.Contains("cpus", _error.ToString(), StringComparison.Ordinal);
        Assert.Contains("memori", _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Host_show_asks_the_daemon()
    {
        Assert.Equal(0, Execute("host", "show"));
        Assert.Contains("vmmd: ", _out.ToString(), StringComparison.Ordinal);
        Assert.Contains("NODE", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("host", "show", "-o", "json"));
        using JsonDocument shown = JsonDocument.Parse(_out.ToString());
        Assert.True(shown.RootElement.TryGetProperty("nodes", out _));
    }

    [Fact]
    public async Task Waiting_for_the_guest_ends_with_it_or_in_time()
    {
        Create();
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal(1, Execute("vm", "power-button", "web1", "--wait", "1"));
        Assert.Contains("vmmctl vm stop web1", _error.ToString(), StringComparison.Ordinal);
        FakeWorker worker = _workers.Alive.Values.Single();
        Assert.Equal(1, worker.PowerButtonPresses);

        // The name may stand behind --wait: it is no number.
        Task<int> waiting = Task.Run(() => Execute("vm", "power-button", "--wait", "web1"));
        await Task.Delay(300);
        Assert.False(waiting.IsCompleted, _error.ToString());
        worker.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        Assert.Equal(0, await waiting.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.Equal("web1 is stopped\n", _out.ToString());
    }

    [Fact]
    public void An_edit_changes_the_spec_and_leaves_nothing_behind()
    {
        Create();
        Assert.Equal(0, Edit("sed -i s/64MiB/128MiB/"));
        Assert.Equal("web1 is changed\n", _out.ToString());
        Assert.Equal(0, Execute("vm", "list"));
        Assert.Contains("128 MiB", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Edit("true"));
        Assert.Equal("web1 is unchanged\n", _out.ToString());
        Assert.Equal(1, Edit("false"));
        Assert.Empty(Directory.GetFileSystemEntries(PathOf("tmp")));
    }

    [Fact]
    public void Text_that_the_daemon_refuses_is_kept_where_only_its_writer_can_read_it()
    {
        Create();
        Assert.Equal(2, Edit("sed -i s/64MiB/lots/"));
        string folder = Assert.Single(Directory.GetDirectories(PathOf("tmp")));
        string file = Path.Combine(folder, "web1.yaml");
        Assert.Contains(file, _error.ToString(), StringComparison.Ordinal);
        Assert.Contains("memory: lots", File.ReadAllText(file), StringComparison.Ordinal);
        Assert.Equal(UnixFileMode.None, File.GetUnixFileMode(folder) & (UnixFileMode.GroupRead | UnixFileMode.GroupExecute
            | UnixFileMode.OtherRead | UnixFileMode.OtherExecute));
    }

    [Fact]
    public async Task Events_come_as_they_happen()
    {
        Create();
        using StringWriter output = new();
        TextWriter seen = TextWriter.Synchronized(output);
        using Remote.DaemonSession session = new(new Remote.DaemonAddress(_socket), isJson: true, seen, _error);
        using CancellationTokenSource stop = new(TimeSpan.FromSeconds(60));
        Task following = Nouns.EventView.LogsAsync(session, "web1", follow: true, stop.Token);
        Assert.Equal(0, Execute("vm", "start", "web1"));
        while (!Text().Contains("\"running\"", StringComparison.OrdinalIgnoreCase))
        {
            await Task.Delay(20, stop.Token);
        }

        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => following);
        string[] lines = Text().TrimEnd().Split('\n');
        Assert.All(lines, line => JsonDocument.Parse(line).Dispose());
        Assert.Contains("created", lines[0], StringComparison.Ordinal);

        string Text()
        {
            lock (seen) // what a synchronized writer locks itself
            {
                return output.ToString();
            }
        }
    }

    [Theory]
    [InlineData("foo", "expected unix:")]
    [InlineData("http://localhost:1", "expected unix:")]
    [InlineData("https://localhost:1/path", "expected unix:")]
    [InlineData("https://localhost:1 --token-file /nonexistent", "--token-file /nonexistent: does not exist")]
    [InlineData("https://localhost:1 --ca /nonexistent", "--ca /nonexistent: does not exist")]
    [InlineData("https://localhost:1 --key /nonexistent", "goes with --certificate")]
    [InlineData("unix:///x --certificate /nonexistent", "go with https")]
    public void An_address_that_is_none_is_bad_usage(string host, string message)
    {
        Assert.Equal(
            2, new Application(() => KvmSurvey.None("nobody asks"), _out, _error).Execute(["vm", "list", "--host", .. host.Split(' ')]));
        Assert.Contains(message, _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_daemon_that_does_not_run_is_said_with_how_to_start_it()
    {
        Assert.Equal(1, new Application(() => KvmSurvey.None("nobody asks"), _out, _error)
            .Execute(["vm", "list", "--host", "unix://" + PathOf("none.sock")]));
        Assert.Contains("systemctl start vmmd", _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_token_is_made_listed_and_revoked_by_its_name()
    {
        Assert.Equal(0, Execute("token", "create", "ci", "--role", "viewer", "--days", "2"));
        Assert.Single(_out.ToString().TrimEnd().Split('\n')); // the token and nothing else: it goes into a file
        Assert.Contains("ci (viewer) is good until", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("token", "list"));
        Assert.Matches("(?m)^ci +viewer", _out.ToString());
        Assert.Equal(0, Execute("token", "delete", "ci"));
        Assert.Equal(0, Execute("token", "list"));
        Assert.DoesNotContain("viewer", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(2, Execute("token", "create", "ci", "--role", "king"));
    }

    [Fact]
    public void Cpu_time_is_limited_shown_and_set_free()
    {
        Create();
        Assert.Equal(1, Execute("vm", "limit", "web1", "cpu", "--quota", "50%"));
        Assert.Contains("web1 is Defined", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal(0, Execute("vm", "limit", "web1", "cpu", "--quota", "150%", "--weight", "200"));
        Assert.Equal("web1: cpu: quota 150%, weight 200\n", _out.ToString());
        Assert.Equal(0, Execute("vm", "show", "web1"));
        Assert.Matches("(?m)^cpu limits: +quota 150%, weight 200$", _out.ToString());
        Assert.Equal(0, Execute("vm", "stats", "web1"));
        Assert.Contains("cpu quota used up in 30 of 40 periods, waited 2500 ms", _out.ToString(), StringComparison.Ordinal);
        Assert.Matches(
            "(?m)^DISK +READS +READ +WRITES +WRITTEN +FLUSHES +ERRORS +IN FLIGHT +HELD +WAIT p99 +STORAGE p99$", _out.ToString());
        Assert.Matches("(?m)^disk0 +1 +512 B +2 +1 KiB +3 +0 +4 +5 +< 1 µs +-$", _out.ToString());
        Assert.Matches("(?m)^disk1 +0 +0 B +0 +0 B +0 +0 +- +- +- +-$", _out.ToString()); // a worker that does not tell
        Assert.Matches("(?m)^NET +FRAMES IN +IN +FRAMES OUT +OUT +DROPPED +MOVED BY$", _out.ToString());
        Assert.Matches("(?m)^net0 +6 +7 B +8 +9 B +10 +worker$", _out.ToString());
        Assert.Equal(2, Execute("vm", "stats", "web1", "--interval", "5"));
        Assert.Equal(0, Execute("vm", "agent", "web1"));
        Assert.Matches("^agent: +none: the VM has no vsock", _out.ToString());
        Assert.Equal(0, Execute("-o", "json", "vm", "limit", "web1", "cpu", "--none"));
        using JsonDocument free = JsonDocument.Parse(_out.ToString());
        Assert.Equal(
            (100, false), (free.RootElement.GetProperty("weight").GetInt32(), free.RootElement.TryGetProperty("quotaPercent", out _)));
    }

    [Theory]
    [InlineData("cpu --quota 150", "percent of one CPU")]
    [InlineData("cpu --quota 0%", "1 to 100000 percent")]
    [InlineData("cpu --weight 10001", "weight of 1 to 10000")]
    [InlineData("cpu", "--quota, --weight or both")]
    [InlineData("cpu --none --quota 5%", "--quota, --weight or both")]
    [InlineData("cpu --bandwidth 1MiB", "not with cpu")]
    [InlineData("disk0 --quota 5%", "go with cpu, not with disk0")]
    [InlineData("disk0", "--bandwidth, --operations or both")]
    public void A_limit_that_makes_no_sense_is_bad_usage(string limit, string message)
    {
        Create();
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal(2, Execute(["vm", "limit", "web1", .. limit.Split(' ')]));
        Assert.Contains(message, _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void The_log_level_is_shown_and_changed()
    {
        Assert.Equal(0, Execute("host", "log-level", "debug"));
        Assert.Equal("debug\n", _out.ToString());
        Assert.Equal(0, Execute("host", "log-level"));
        Assert.Equal("debug\n", _out.ToString());
        Assert.Equal(2, Execute("host", "log-level", "loud"));
        Assert.Contains("loud: expected one of debug, information", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("host", "log-level", "error", "-o", "json"));
        Assert.Equal("{\"level\":\"error\"}\n", _out.ToString());
    }

    [Fact]
    public void A_graceful_stop_asks_the_guest_and_then_pulls_the_plug()
    {
        Create();
        Assert.Equal(0, Execute("vm", "start", "web1"));
        FakeWorker worker = _workers.Alive.Values.Single();
        Assert.Equal(0, Execute("vm", "stop", "--graceful", "--timeout", "1", "web1"));
        Assert.Equal((1, "web1 is stopped\n"), (worker.PowerButtonPresses, _out.ToString()));
    }

    [Fact]
    public void All_that_run_are_stopped_at_once_paused_ones_too()
    {
        Create();
        Assert.Equal(0, Execute("vm", "stop", "--all"));
        Assert.Equal("no VM runs\n", _out.ToString());
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal(0, Execute("vm", "pause", "web1"));
        FakeWorker worker = _workers.Alive.Values.Single();
        Assert.Equal(0, Execute("vm", "stop", "--all", "--graceful", "--timeout", "1"));
        Assert.Equal((1, "web1 is stopped\n"), (worker.PowerButtonPresses, _out.ToString()));
        Assert.Equal(0, Execute("vm", "start", "web1"));
        Assert.Equal(0, Execute("-o", "json", "vm", "stop", "--all"));
        Assert.Contains(
            "\"state\":\"stopped\"", _out.ToString().Replace(" ", "", StringComparison.Ordinal), StringComparison.OrdinalIgnoreCase);
        Assert.Equal(2, Execute("vm", "stop", "web1", "--all"));
        Assert.Equal(2, Execute("vm", "stop"));
    }

    [Fact]
    public void A_disk_is_made_by_a_job_listed_and_deleted()
    {
        Assert.Equal(0, Execute("disk", "create", "data.img", "--size", "8MiB", "--wait", "30"));
        Assert.Equal("data.img: disk-create is done\n", _out.ToString());
        Assert.Equal(8 << 20, new FileInfo(PathOf("state/disks/data.img")).Length);
        Assert.Equal(0, Execute("disk", "list"));
        Assert.Matches("(?m)^data.img +8 MiB +- +/", _out.ToString());
        Assert.Equal(0, Execute("complete", "disk"));
        Assert.Equal("data.img\n", _out.ToString());
        Assert.Equal(0, Execute("disk", "delete", "data.img"));
        Assert.False(File.Exists(PathOf("state/disks/data.img")));
        Assert.Equal(1, Execute("disk", "show", "data.img"));
        Assert.Equal(2, Execute("disk", "create", "data.img", "--size", "lots"));
        Assert.Equal(2, Execute("disk", "create", "data.img", "--size", "100B"));
    }

    [Fact]
    public void A_disk_that_a_spec_names_stays()
    {
        Assert.Equal(0, Execute("disk", "create", "used.img", "--size", "1MiB", "--wait"));
        File.AppendAllText(PathOf("web1.yaml"), $"disks: [{{path: {PathOf("state/disks/used.img")}}}]\n");
        Create();
        Assert.Equal(0, Execute("disk", "show", "used.img"));
        Assert.Matches("used by: +web1", _out.ToString());
        Assert.Equal(1, Execute("disk", "delete", "used.img"));
        Assert.True(File.Exists(PathOf("state/disks/used.img")));
    }

    [Fact]
    public async Task A_job_is_waited_for_cancelled_and_its_end_is_the_exit_code()
    {
        Create();
        Assert.Equal(0, Execute("vm", "start", "web1"));
        using VmmClient client = new(_socket);
        string id = (await client.BeginStopAsync("web1", TimeSpan.FromSeconds(600), CancellationToken.None)).Id;
        Assert.Equal(0, Execute("job", "list"));
        Assert.Matches($"(?m)^{id} +vm-stop +web1 +running", _out.ToString());
        Assert.Equal(1, Execute("job", "wait", id, "--timeout", "1"));
        Assert.Contains("it goes on", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(2, Execute("job", "wait", id, "--timeout", "2000000000"));
        Assert.Equal(0, Execute("job", "cancel", id));
        Assert.Equal($"{id} is cancelled\n", _out.ToString());
        Assert.Equal(1, Execute("job", "wait", id));
        Assert.Equal("vmmctl: web1: vm-stop was cancelled\n", _error.ToString());
        Assert.Equal(0, Execute("-o", "json", "job", "show", id));
        using JsonDocument shown = JsonDocument.Parse(_out.ToString());
        Assert.Equal("Cancelled", shown.RootElement.GetProperty("state").GetString());
        Assert.Single(_workers.Alive); // a cancelled stop leaves the VM running
        Assert.Equal(1, Execute("job", "show", "nosuch"));
    }

    private int Edit(string editor)
    {
        string? before = Environment.GetEnvironmentVariable("EDITOR"), temporary = Environment.GetEnvironmentVariable("TMPDIR");
        Directory.CreateDirectory(PathOf("tmp"));
        Environment.SetEnvironmentVariable("EDITOR", editor);
        Environment.SetEnvironmentVariable("TMPDIR", PathOf("tmp"));
        try
        {
            return Execute("vm", "edit", "web1");
        }
        finally
        {
            Environment.SetEnvironmentVariable("EDITOR", before);
            Environment.SetEnvironmentVariable("TMPDIR", temporary);
        }
    }
}
