using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Cpu;
using Vmm.Daemon;
using Vmm.Daemon.Tests;
using Vmm.Daemon.Tests.Guests;

namespace Vmm.Cli.Tests;

/// <summary>vmmctl ssh against a real daemon, with an ssh that only writes down how it was started.</summary>
[Collection("environment")] // PATH and XDG_STATE_HOME
public sealed class SshTests : IAsyncLifetime, IDisposable
{
    private const string User = "nets: [{user: {publish: [\"127.0.0.1:2222:22\", \"5353:22/udp\"]}}]\n";

    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl-").FullName;
    private readonly FakeWorkers _workers = new();
    private readonly StringWriter _out = new(), _error = new();
    private readonly string? _path = Environment.GetEnvironmentVariable("PATH");
    private readonly string? _state = Environment.GetEnvironmentVariable("XDG_STATE_HOME");
    private DaemonHost _daemon = null!;
    private string _socket = "";

    public async Task InitializeAsync()
    {
        DaemonOptions options = new()
        {
            StateFolder = PathOf("state"),
            RunFolder = PathOf("run"),
            Storage = [_folder],
            NetworkHost = new FakeNetworks(),
            Log = new Vmm.Daemon.Logging.LogOptions { Level = LogLevel.Critical }
        };
        await File.WriteAllTextAsync(PathOf("kernel"), "k");
        _daemon = await DaemonHost.StartAsync(options, _workers, CancellationToken.None);
        _socket = options.SocketPath;
        Directory.CreateDirectory(PathOf("bin"));
        await File.WriteAllTextAsync(PathOf("bin/ssh"), $"#!/bin/sh\nprintf '%s\\n' \"$@\" >'{PathOf("started")}'\nexit 7\n");
        File.SetUnixFileMode(PathOf("bin/ssh"), (UnixFileMode)Convert.ToInt32("755", 8));
        Environment.SetEnvironmentVariable("PATH", PathOf("bin") + ":" + _path);
        Environment.SetEnvironmentVariable("XDG_STATE_HOME", PathOf("a 100% state"));
    }

    public async Task DisposeAsync()
    {
        Environment.SetEnvironmentVariable("PATH", _path);
        Environment.SetEnvironmentVariable("XDG_STATE_HOME", _state);
        await _daemon.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    public void Dispose()
    {
        _out.Dispose();
        _error.Dispose();
    }

    private string PathOf(string name) => Path.Combine(_folder, name);

    private int Execute(params string[] args)
    {
        _out.GetStringBuilder().Clear();
        _error.GetStringBuilder().Clear();
        return new Application(() => KvmSurvey.None("nobody asks"), _out, _error).Execute(["--host", "unix://" + _socket, .. args]);
    }

    private void Run(string name, string more)
    {
        File.WriteAllText(PathOf(name + ".yaml"), $"name: {name}\nmemory: 64MiB\nboot: {{kernel: kernel}}\n{more}");
        Assert.True(Execute("vm", "create", "-f", PathOf(name + ".yaml"), "--start") == 0, _error.ToString());
    }

    private string Refused(params string[] args)
    {
        Assert.NotEqual(0, Execute(["ssh", "--wait", "0", .. args]));
        Assert.False(File.Exists(PathOf("started")));
        return _error.ToString();
    }

    /// <summary>Where, as whom and what for it was started.</summary>
    private string[] Started(params string[] args)
    {
        Assert.True(Execute(["ssh", "--wait", "0", .. args]) == 7, _error.ToString()); // the code is that of ssh
        string[] words = File.ReadAllLines(PathOf("started"));
        File.Delete(PathOf("started"));
        int port = Array.IndexOf(words, "-p"), user = Array.IndexOf(words, "-l"), rest = Array.IndexOf(words, "--");
        return [$"{words[user + 1]}@{words[rest + 1]}:{words[port + 1]}", .. words[(rest + 2)..]];
    }

    [Fact]
    public void A_published_port_is_where_and_the_known_hosts_are_the_vms_own()
    {
        Run("web1", User);
        Assert.Equal(["ann@127.0.0.1:2222"], Started("web1", "--user", "ann"));
        Assert.Equal(["ann@127.0.0.1:2222", "ls", "-l", "a b"], Started("web1", "-l", "ann", "--", "ls", "-l", "a b"));
        Execute("ssh", "--wait", "0", "web1", "--user", "ann", "--identity", "key");
        string[] words = File.ReadAllLines(PathOf("started"));
        Assert.Equal(0, Execute("-o", "json", "vm", "show", "web1"));
        string id = JsonDocument.Parse(_out.ToString()).RootElement.GetProperty("id").GetString()!;
        Assert.Equal(
            [
                "-o", $"UserKnownHostsFile=\"{_folder}/a 100%% state/vmm/ssh/{id}\"", "-o", "StrictHostKeyChecking=accept-new",
                "-o", $"HostKeyAlias=vmm-{id}", "-o", "CheckHostIP=no", "-p", "2222", "-l", "ann", "-i", "key", "--", "127.0.0.1",
            ],
            words);
        Assert.Equal((UnixFileMode)Convert.ToInt32("700", 8), File.GetUnixFileMode(PathOf("a 100% state/vmm/ssh")));
    }

    [Theory]
    [InlineData("nets: [{user: {publish: [\"0.0.0.0:8022:22\"]}}]\n", "127.0.0.1:8022")]
    [InlineData("nets: [{user: {publish: [\"[::]:8022:22\"]}}]\n", "::1:8022")]
    [InlineData("nets: [{user: {publish: [\"192.0.2.9:8022:22\"]}}]\n", "192.0.2.9:8022")]
    [InlineData("nets: [{bridge: b, mac: \"52:54:00:00:00:02\", antiSpoof: true, addresses: [\"2001::\", 192.0.2.7]}]\n", "192.0.2.7:22")]
    public void Without_an_agent_the_spec_tells_where(string nets, string where)
    {
        Run("web1", nets);
        Assert.Equal(["ann@" + where], Started("web1", "--user", "ann"));
    }

    [Fact]
    public async Task A_guest_that_boots_still_is_waited_for_and_not_for_ever()
    {
        using TcpListener server = new(IPAddress.Loopback, 0);
        server.Start();
        int port = ((IPEndPoint)server.LocalEndpoint).Port;
        Run("web1", $"nets: [{{user: {{publish: [\"127.0.0.1:{port}:22\"]}}}}]\n");
        // Taken and closed, as passt does for a guest that does not listen; then there is a server.
        Task answers = Task.Run(async () =>
        {
            for (int i = 0; ; i++)
            {
                using TcpClient client = await server.AcceptTcpClientAsync();
                if (i == 3)
                {
                    await client.GetStream().WriteAsync("SSH-2.0-test\r\n"u8.ToArray());
                    return;
                }
            }
        });
        Assert.True(Execute("ssh", "web1", "--user", "ann", "--wait", "60") == 7, _error.ToString());
        await answers;
        string where = $"web1 does not answer at 127.0.0.1 port {port}";
        Assert.Equal($"vmmctl: {where} yet: waiting for it up to 60 s\n", _error.ToString());
        File.Delete(PathOf("started"));
        server.Stop();
        Assert.Equal(1, Execute("ssh", "web1", "--user", "ann", "--wait", "1"));
        Assert.Contains($"{where}, also not within 1 s (--wait): 'vmmctl vm console web1'", _error.ToString(), StringComparison.Ordinal);
        Assert.False(File.Exists(PathOf("started")));
        Assert.Equal(2, Execute("ssh", "web1", "--wait", "3601"));
    }

    [Fact]
    public void On_a_private_network_it_is_the_address_that_the_vm_has_there()
    {
        Assert.True(Execute("network", "create", "lan", "--subnet", "10.91.7.0/24") == 0, _error.ToString());
        Run("web1", "nets: [{network: lan, addresses: [10.91.7.40]}]\n");
        Assert.Equal(["ann@10.91.7.40:22"], Started("web1", "--user", "ann"));
        Run("web2", "nets: [{network: lan}]\n");
        Assert.StartsWith("ann@10.91.7.", Assert.Single(Started("web2", "--user", "ann")), StringComparison.Ordinal);
    }

    [Fact]
    public void The_agents_word_is_an_address_or_nothing()
    {
        string interfaces = "[]";
        FakeQemuAgent guest = new((command, _) => command switch
        {
            "guest-sync-delimited" => null,
            "guest-info" => """{"return":{"version":"9"}}""",
            "guest-network-get-interfaces" => $$"""{"return":{{interfaces}}}""",
            "guest-get-osinfo" => """{"return":{"name":"Debian GNU/Linux","pretty-name":"Debian GNU/Linux 13 (trixie)"}}""",
            _ => """{"error":{"desc":"no"}}""",
        });
        string Address(string mac, params string[] ips) => $$"""
            {"name":"eth0","hardware-address":"{{mac}}","ip-addresses":[{{string.Join(',', ips.Select(ip =>
                $$"""{"ip-address":"{{ip}}","prefix":24,"ip-address-type":"ipv4"}"""))}}]}
            """.Replace("\n", "", StringComparison.Ordinal);
        Run("web1", "guestAgent: true\nnets: [{tap: tap0}, {user: true, mac: \"52:54:00:00:00:09\"}]\n");
        Assert.Contains("its agent does not", Refused("web1", "--user", "ann"), StringComparison.Ordinal);
        _workers.Alive.Values.Single().Agent = guest.Connect;
        string[] bad = ["-oProxyCommand=touch x", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "0.0.0.0", "224.0.0.1", "255.255.255.255"];
        interfaces = $"[{Address("52:54:00:00:00:09", "192.0.2.1")},{Address("52:54:00:00:00:01", bad)}]";
        string refused = Refused("web1", "--user", "ann");
        Assert.True(refused.Contains("tells of no address", StringComparison.Ordinal), refused);
        interfaces = $"[{Address("52:54:00:00:00:09", "192.0.2.1")},{Address("52:54:00:00:00:01", [.. bad, "2001:db8::5", "192.0.2.5"])}]";
        Assert.Equal(["debian@192.0.2.5:22"], Started("web1"));
    }

    [Fact]
    public void The_image_tells_the_usual_user()
    {
        using (FileStream disk = File.Create(PathOf("noble-server-cloudimg-amd64.img")))
        {
            disk.SetLength(1 << 20);
        }

        foreach ((string name, string image) in new[] { ("u", "ubuntu-24.04"), ("d", "Debian-13"), ("x", "base") })
        {
            Assert.True(
                Execute("image", "import", PathOf("noble-server-cloudimg-amd64.img"), "--name", image) == 0, _error.ToString());
            Assert.True(Execute("vm", "create", name, "--image", image, "--publish", "2222:22", "--start") == 0, _error.ToString());
        }

        Assert.Equal(["ubuntu@127.0.0.1:2222"], Started("u"));
        Assert.Equal(["debian@127.0.0.1:2222"], Started("d"));
        Assert.Contains("x's image, base, does not tell", Refused("x"), StringComparison.Ordinal);
        Run("y", User);
        Assert.Contains("--user NAME", Refused("y"), StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_missing_is_said()
    {
        Run("web1", User);
        Run("web2", "");
        Run("web3", "nets: [{user: {publish: [\"8080:80\"]}}]\n");
        Assert.Contains("web2 has no network", Refused("web2", "--user", "a"), StringComparison.Ordinal);
        Assert.Contains("no port of the host leads to its port 22", Refused("web3", "--user", "a"), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "pause", "web1"));
        Assert.Contains("'vmmctl vm resume web1'", Refused("web1", "--user", "a"), StringComparison.Ordinal);
        Assert.Equal(0, Execute("vm", "stop", "web1"));
        Assert.Contains("start it with 'vmmctl vm start web1'", Refused("web1", "--user", "a"), StringComparison.Ordinal);
        Assert.Contains("there is no VM of this name", Refused("none", "--user", "a"), StringComparison.Ordinal);
        Environment.SetEnvironmentVariable("PATH", PathOf("nowhere"));
        Assert.Contains("apt install openssh-client", Refused("web1", "--user", "a"), StringComparison.Ordinal);
    }
}
