using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;
using VirtioTransport = Vmm.Spec.VirtioTransport;

namespace Vmm.Machine.Tests.Run;

/// <summary>virtio-net on a tap of a namespace of the test's own, with the micro-guest net.elf behind it.</summary>
[Trait("Tier", "kvm")]
[Collection("Machines with net0")] // threads of the process are looked for by their names
public sealed class NetTests
{
    [KvmFact(NeedsRoot = true)]
    public void The_guest_answers_pings_and_streams_megabytes_over_pci() => PingAndStream(VirtioTransport.Pci, 1);

    [KvmFact(NeedsRoot = true)]
    public void The_guest_answers_pings_and_streams_megabytes_over_mmio() => PingAndStream(VirtioTransport.Mmio, 1);

    [KvmFact(NeedsRoot = true)]
    public void A_driver_with_one_pair_uses_a_tap_with_four_queues() => PingAndStream(VirtioTransport.Pci, 4);

    [KvmFact(NeedsRoot = true)]
    public void A_limit_set_while_it_runs_holds_the_guest_back()
    {
        using TapNamespace network = new();
        using Terminal terminal = new();
        using VirtualMachine machine = Machine(network, terminal, new NetSpec { Tap = "vmtap0" });
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY");
        using Socket socket = network.Udp();
        Assert.Throws<ArgumentException>(() => machine.SetLimit("net1", null));
        machine.SetLimit("net0", new RateLimit(0, 40, BurstOperations: 10));
        long before = Stopwatch.GetTimestamp();
        for (int i = 0; i < 60; i++)
        {
            Exchange(socket, 7, 100);
        }

        // 60 frames each way, 10 at once, then 40 a second (the host's own frames make it slower, never faster).
        double limited = Stopwatch.GetElapsedTime(before).TotalSeconds;
        Assert.InRange(limited, 1.24, 60);
        machine.SetLimit("net0", null);
        before = Stopwatch.GetTimestamp();
        for (int i = 0; i < 60; i++)
        {
            Exchange(socket, 7, 100);
        }

        Assert.InRange(Stopwatch.GetElapsedTime(before).TotalSeconds, 0, 0.8 * limited);
        Finish(socket, run, result, terminal);
    }

    [KvmFact(NeedsRoot = true)]
    public void A_tap_that_goes_away_takes_the_link_down_and_not_the_machine()
    {
        using TapNamespace network = new();
        using Terminal terminal = new();
        using VirtualMachine machine = Machine(network, terminal, new NetSpec { Tap = "vmtap0" });
        using CancellationTokenSource stop = new();
        RunResult? ended = null;
        Thread run = new(() => ended = machine.Run(stop.Token));
        run.Start();
        terminal.WaitFor("READY");
        network.Do(() =>
        {
            TapNamespace.Ip("link", "del", "vmtap0");
            return 0;
        });
        Thread.Sleep(50);
        long before = Ticks("net0-io0");
        Thread.Sleep(500);
        Assert.InRange(Ticks("net0-io0") - before, 0, 10); // it sleeps, and does not turn in circles over the dead tap
        stop.Cancel();
        Assert.True(run.Join(20_000));
        Assert.Equal(ExitReason.Stopped, ended!.Reason);
    }

    [KvmFact(NeedsRoot = true)]
    public void A_tap_that_cannot_be_used_is_explained()
    {
        using TapNamespace network = new();
        using Terminal terminal = new();
        Assert.Contains(
            "tap nothere does not exist: create it with 'ip tuntap add dev nothere mode tap'",
            Refusal("nothere", 1),
            StringComparison.Ordinal);
        Assert.Contains("mode tap multi_queue", Refusal("vmtap0", 2), StringComparison.Ordinal);
        Assert.Contains("is not a tap", Refusal("lo", 1), StringComparison.Ordinal);
        using TapBackend first = network.Do(() => TapBackend.Open("vmtap0", 1));
        Assert.Contains("in use", Refusal("vmtap0", 1), StringComparison.Ordinal);

        string Refusal(string tap, int queues) =>
            Assert.Throws<TapException>(() => Machine(network, terminal, new NetSpec { Tap = tap, Queues = queues })).Message;
    }

    /// <summary>CPU time of a thread of this process, in ticks of 10 ms: proc(5), fields 14 and 15 of stat.</summary>
    private static long Ticks(string thread)
    {
        string folder = Directory.GetDirectories("/proc/self/task").Single(t => string.Equals(NameOf(t), thread, StringComparison.Ordinal));
        string stat = File.ReadAllText(folder + "/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture);
    }

    /// <summary>The name of a thread; empty when it has ended meanwhile.</summary>
    private static string NameOf(string task)
    {
        try
        {
            return File.ReadAllText(task + "/comm").Trim();
        }
        catch (IOException)
        {
            return "";
        }
    }

    private static void PingAndStream(VirtioTransport transport, int queues)
    {
        using TapNamespace network = new(multiQueue: queues > 1);
        using Terminal terminal = new();
        using VirtualMachine machine = Machine(
            network, terminal, new NetSpec { Tap = "vmtap0", Mac = "52:54:00:ab:cd:ef", Queues = queues, Transport = transport });
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY mac=52:54:00:ab:cd:ef");
        Ping(network);
        using Socket socket = network.Udp();
        Stream(socket, 4 << 20);
        NetCounters counters = machine.Counters.Nets.Single().Counters;
        Assert.InRange(counters.ReceivedBytes, 4 << 20, 8 << 20);
        Assert.InRange(counters.SentBytes, 4 << 20, 8 << 20);
        Assert.Equal(0, counters.Dropped);
        Finish(socket, run, result, terminal);
        Assert.Contains("bad=0", terminal.Said, StringComparison.Ordinal);
    }

    private static VirtualMachine Machine(TapNamespace network, Terminal terminal, NetSpec net) =>
        network.Do(() => VirtualMachine.Create(GuestSpec("net") with { Nets = [net] }, terminal));

    private static void Finish(Socket socket, Thread run, Func<RunResult> result, Terminal terminal)
    {
        Exchange(socket, 9, 8);
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    // An echo request of RFC 792, made by hand; the answer must be the same but for type and sum.
    private static void Ping(TapNamespace network)
    {
        using Socket socket = network.Icmp();
        byte[] packet = new byte[64], answer = new byte[200];
        for (ushort i = 0; i < 20; i++)
        {
            new Random(i).NextBytes(packet);
            (packet[0], packet[1], packet[2], packet[3]) = (8, 0, 0, 0);
            BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(2), (ushort)~Sum(packet));
            socket.SendTo(packet, TapNamespace.Guest(0));
            int length = socket.Receive(answer);
            Assert.Equal(20 + 64, length);
            Assert.Equal(0, answer[20]);
            Assert.Equal(0xFFFF, Sum(answer.AsSpan(20, 64)));
            Assert.True(answer.AsSpan(24, 60).SequenceEqual(packet.AsSpan(4)));
        }
    }

    private static int Sum(ReadOnlySpan<byte> bytes)
    {
        int sum = 0;
        for (int i = 0; i < bytes.Length; i += 2)
        {
            sum += BinaryPrimitives.ReadUInt16BigEndian(bytes[i..]);
        }

        return (sum & 0xFFFF) + (sum >> 16) is var folded && folded > 0xFFFF ? folded - 0xFFFF : folded;
    }

    /// <summary>Sends and verifies so many bytes, up to 16 frames under way.</summary>
    private static void Stream(Socket socket, int bytes)
    {
        byte[] packet = new byte[1400], expected = new byte[1400], answer = new byte[2000];
        int sent = 0, got = 0, count = (bytes + packet.Length - 1) / packet.Length;
        while (got < count)
        {
            while (sent < count && sent - got < 16)
            {
                Fill(packet, Seed(sent++));
                socket.SendTo(packet, TapNamespace.Guest(5001));
            }

            Assert.Equal(packet.Length, socket.Receive(answer));
            Fill(expected, Seed(got++) + 1);
            Assert.True(expected.AsSpan().SequenceEqual(answer.AsSpan(0, packet.Length)), $"answer {got} is wrong");
        }
    }

    private static ulong Seed(int number) => 0x1234_0000_0000UL + (2 * (ulong)number);

    // As in tests/guests/net.c: the seed, then xorshift64* from it.
    private static void Fill(Span<byte> packet, ulong seed)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(packet, seed);
        ulong state = seed;
        for (int i = 8; i < packet.Length; i += 8)
        {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            BinaryPrimitives.WriteUInt64LittleEndian(packet[i..], state * 0x2545f4914f6cdd1d);
        }
    }

    private static void Exchange(Socket socket, int port, int length)
    {
        byte[] packet = new byte[length], answer = new byte[2000];
        new Random(length).NextBytes(packet);
        socket.SendTo(packet, TapNamespace.Guest(port));
        Assert.Equal(length, socket.Receive(answer));
        Assert.True(packet.AsSpan().SequenceEqual(answer.AsSpan(0, length)));
    }
}
