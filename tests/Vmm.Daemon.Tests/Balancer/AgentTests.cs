using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Vmm.Daemon.Balancer;
using Vmm.Testing;

namespace Vmm.Daemon.Tests.Balancer;

/// <summary>The real agent program over a made-up /sys, and what guests may say instead.</summary>
public sealed class AgentTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-agent-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task The_agent_tells_what_sys_says()
    {
        Node(0, "Node 0 MemTotal:        1000 kB\nNode 0 MemFree:          100 kB\nNode 0 Active(file):      50 kB\nNode 0 Inactive(file): "
            + "    30 kB\nNode 0 SReclaimable:      40 kB\n");
        Node(3, "Node 3 MemTotal:        2000 kB\nNode 3 MemFree:         1990 kB\nNode 3 Inactive(file):    500 kB\nrubbish\n");
        Directory.CreateDirectory(Path.Combine(_folder, "proc/pressure"));
        await File.WriteAllTextAsync(Path.Combine(_folder, "proc/pressure/memory"),
            "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n");
        using Process agent = Start();
        try
        {
            await using FakeVsock vsock = new(Path.Combine(_folder, "v"), Path.Combine(_folder, "a"));
            AgentReport report = (await AgentClient.AskAsync(Path.Combine(_folder, "v"), TimeSpan.FromSeconds(20), default))!;
            Assert.Equal(
                [new AgentNode(0, 1000 * 1024, 100 * 1024, 200 * 1024), new AgentNode(3, 2000 * 1024, 1990 * 1024, 2000 * 1024)],
                report.Nodes);
            Assert.Equal((12.5, 0.25), (report.Some, report.Full));
            Assert.Equal(["CONNECT 1028", "{\"v\":1,\"get\":\"memory\"}"], vsock.Asked);
        }
        finally
        {
            agent.Kill();
            await agent.WaitForExitAsync();
        }
    }

    [Fact]
    public async Task The_agent_survives_whatever_it_is_asked()
    {
        Node(0, "Node 0 MemTotal: 99999999999999999999999 kB\nNode 0 MemFree: -5 kB\n");
        using Process agent = Start();
        try
        {
            Random random = new(8);
            for (int i = 0; i < 200; i++)
            {
                byte[] question = i % 2 == 0 ? new byte[random.Next(1, 700)]
                    : Encoding.ASCII.GetBytes($"{{\"v\":1,\"freeze\":{{\"seconds\":{random.Next(-3, 120)}}}}}");
                if (i % 2 == 0)
                {
                    random.NextBytes(question);
                }
                else
                {
                    question[random.Next(question.Length)] = (byte)random.Next(256);
                }

                using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                socket.Connect(new UnixDomainSocketEndPoint(Path.Combine(_folder, "a")));
                try
                {
                    socket.Send(question);
                    socket.Send("\n{\"v\":2}\n{\"v\":1,\"get\":\"mem"u8);
                }
                catch (SocketException)
                {
                    // It hung up on a question that was too long.
                }
            }

            Assert.False(agent.HasExited);
            using Socket last = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            last.Connect(new UnixDomainSocketEndPoint(Path.Combine(_folder, "a")));
            last.Send("nonsense\n"u8);
            byte[] answer = new byte[100];
            Assert.Equal("{\"v\":1,\"error\":\"not understood\"}\n", Encoding.ASCII.GetString(answer, 0, last.Receive(answer)));
        }
        finally
        {
            agent.Kill();
            await agent.WaitForExitAsync();
        }

        Assert.Equal("", await agent.StandardError.ReadToEndAsync()); // the sanitizers' place to complain
    }

    [Theory]
    [InlineData("{\"v\":1,\"freeze\":{\"seconds\":0}}")]
    [InlineData("{\"v\":1,\"freeze\":{\"seconds\":61}}")]
    [InlineData("{\"v\":1,\"freeze\":{\"seconds\":010}}")]
    [InlineData("{\"v\":1,\"freeze\":{\"seconds\": 9}}")]
    [InlineData("{\"v\":1,\"freeze\":{\"seconds\":-1}}")]
    [InlineData("{\"v\":1,\"freeze\":{\"seconds\":9}} ")]
    [InlineData("{\"v\":1,\"thaw\":false}")]
    public async Task Only_whole_questions_are_understood(string question)
    {
        using Process agent = Start();
        try
        {
            Assert.Equal("{\"v\":1,\"error\":\"not understood\"}", Ask(question));
        }
        finally
        {
            agent.Kill();
            await agent.WaitForExitAsync();
        }
    }

    [Fact]
    public async Task Without_the_right_to_freeze_it_says_so_and_tells_of_memory_all_the_same()
    {
        using Process agent = Start(Environment.IsPrivilegedProcess ? ["setpriv", "--bounding-set=-sys_admin"] : []);
        try
        {
            Assert.Contains("\"memory\":true,\"freeze\":false,\"why\":\"the agent runs without CAP_SYS_ADMIN",
                Ask("{\"v\":1,\"get\":\"agent\"}"), StringComparison.Ordinal);
            Assert.StartsWith("{\"v\":1,\"error\":\"the agent runs without CAP_SYS_ADMIN",
                Ask("{\"v\":1,\"freeze\":{\"seconds\":9}}"), StringComparison.Ordinal);
            Assert.Equal("{\"v\":1,\"error\":\"not frozen by this connection\"}", Ask("{\"v\":1,\"thaw\":true}"));
            Assert.StartsWith("{\"v\":1,\"nodes\":[]", Ask("{\"v\":1,\"get\":\"memory\"}"), StringComparison.Ordinal);
        }
        finally
        {
            agent.Kill();
            await agent.WaitForExitAsync();
        }
    }

    [Fact]
    public async Task Eight_peers_at_once_are_served_and_those_beyond_wait_for_a_place()
    {
        using Process agent = Start();
        List<Socket> idle = [];
        try
        {
            for (int i = 0; i < 8; i++)
            {
                idle.Add(Connect());
            }

            using Socket late = Connect();
            late.Send("x\n"u8);
            byte[] answer = new byte[100];
            idle[7].Send("x\n"u8);
            Assert.True(idle[7].Receive(answer) > 0);
            Assert.False(late.Poll(TimeSpan.FromMilliseconds(200), SelectMode.SelectRead));
            idle[3].Dispose();
            Assert.True(late.Receive(answer) > 0);
        }
        finally
        {
            idle.ForEach(s => s.Dispose());
            agent.Kill();
            await agent.WaitForExitAsync();
        }
    }

    [Theory]
    [InlineData("{\"v\":1,\"nodes\":[{\"node\":0,\"total\":10,\"free\":1,\"available\":2}]}", true)]
    [InlineData("{\"v\":2,\"nodes\":[{\"node\":0,\"total\":10,\"free\":1,\"available\":2}]}", false)]
    [InlineData("{\"v\":1,\"nodes\":[]}", false)]
    [InlineData("{\"v\":1,\"nodes\":[null]}", false)]
    [InlineData("{\"v\":1,\"nodes\":[{\"node\":0,\"total\":10,\"free\":1,\"available\":11}]}", false)]
    [InlineData("{\"v\":1,\"nodes\":[{\"node\":-1,\"total\":10,\"free\":1,\"available\":2}]}", false)]
    [InlineData(
        "{\"v\":1,\"nodes\":[{\"node\":0,\"total\":10,\"free\":1,\"available\":2},{\"node\":0,\"total\":10,\"free\":1,\"available\":2}]}",
        false)]
    [InlineData("{\"v\":1,\"nodes\":[{\"node\":0,\"total\":10,\"free\":1,\"available\":2}],\"some\":101}", false)]
    [InlineData("{\"v\":1}", false)]
    [InlineData("[[[[[[[[[[[[", false)]
    [InlineData("", false)]
    public void Only_sound_reports_are_taken(string line, bool sound) =>
        Assert.Equal(sound, AgentReport.TryRead(Encoding.UTF8.GetBytes(line)) is not null);

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Damaged_reports_are_refused_or_keep_their_bounds()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "20000", CultureInfo.InvariantCulture),
            taken = 0;
        byte[] good =
        [
            .. "{\"v\":1,\"nodes\":[{\"node\":0,\"total\":4096,\"free\":100,\"available\":2000},"u8,
            .. "{\"node\":1,\"total\":9,\"free\":1,\"available\":2}],\"some\":1.5,\"full\":0}"u8
        ];
        Random random = new(9);
        for (int i = 0; i < iterations; i++)
        {
            byte[] line = [.. good];
            for (int k = random.Next(1, 4); k > 0; k--)
            {
                line[random.Next(line.Length)] = random.Next(2) == 0
                    ? (byte)random.Next(256)
                    : (byte)"0123456789{}[],:.-eE\""[random.Next(21)];
            }

            if (AgentReport.TryRead(line.AsSpan(0, random.Next(8) == 0 ? random.Next(line.Length) : line.Length)) is { } report)
            {
                taken++;
                Assert.All(report.Nodes, n => Assert.True(n.Available <= n.Total && n.Free <= n.Total && n.Node >= 0));
            }
        }

        Assert.True(taken > 0);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("no end of line")]
    [InlineData("garbage\n")]
    public async Task A_guest_that_says_nothing_sound_is_given_up_in_time(string? answer)
    {
        await using FakeVsock vsock =
            new(Path.Combine(_folder, "v")) { Answer = answer is "no end of line" ? new string('x', 70_000) : answer };
        Assert.Null(await AgentClient.AskAsync(Path.Combine(_folder, "v"), TimeSpan.FromMilliseconds(500), default));
        Assert.Null(await AgentClient.AskAsync(Path.Combine(_folder, "nobody"), TimeSpan.FromMilliseconds(500), default));
    }

    private void Node(int number, string meminfo)
    {
        string node = Directory.CreateDirectory(Path.Combine(_folder, $"sys/devices/system/node/node{number}")).FullName;
        File.WriteAllText(Path.Combine(node, "meminfo"), meminfo);
    }

    private Socket Connect()
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 60_000 };
        socket.Connect(new UnixDomainSocketEndPoint(Path.Combine(_folder, "a")));
        return socket;
    }

    private string Ask(string question)
    {
        using Socket socket = Connect();
        socket.Send(Encoding.ASCII.GetBytes(question + "\n"));
        byte[] answer = new byte[4096];
        return Encoding.ASCII.GetString(answer, 0, socket.Receive(answer)).TrimEnd('\n');
    }

    private Process Start(params string[] through)
    {
        string[] command =
        [
            .. through, Path.Combine(Tree.Root, "deploy/guest-agent/build/vmm-guest-agent-asan"), "--listen-unix",
            Path.Combine(_folder, "a"), "--root", _folder
        ];
        ProcessStartInfo start =
            new(command[0], command[1..])
            {
                RedirectStandardError = true,
                UseShellExecute = false
            };
        Process agent = Process.Start(start)!;
        for (int i = 0; i < 1000 && !File.Exists(Path.Combine(_folder, "a")); i++)
        {
            Thread.Sleep(10);
        }

        Thread.Sleep(50); // between bind and listen
        return agent;
    }
}
