using System.Globalization;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Daemon.Pressure;

namespace Vmm.Daemon.Tests.Pressure;

/// <summary>What is read of a host's memory, and of files that say something else.</summary>
public sealed class HostMemoryReaderTests : IDisposable
{
    private const ulong KiB = 1024;
    private readonly HostFiles _host = new();

    public void Dispose() => _host.Dispose();

    [Fact]
    public void Nodes_and_stalls_are_read()
    {
        _host.Node(0, total: 1000, free: 100, inactiveFile: 30, reclaimable: 40);
        _host.Node(3, total: 2000, free: 1990, inactiveFile: 500);
        _host.Stall("12.50", "0.25");
        HostReading reading = _host.Reader.Read();
        Assert.Equal([new NodeReading(0, 1000 * KiB, 170 * KiB), new NodeReading(3, 2000 * KiB, 2000 * KiB)], reading.Nodes);
        Assert.Equal((new MemoryStall(0.125, 0.0025), (string?)null), (reading.Stall, reading.Problem));
        Assert.Equal((3000 * KiB, 2170 * KiB), (reading.TotalBytes, reading.AvailableBytes));
    }

    [Fact]
    public void A_kernel_without_numa_and_without_stalls_is_no_problem()
    {
        _host.Whole(total: 1000, free: 100, inactiveFile: 50);
        HostReading reading = _host.Reader.Read();
        Assert.Equal([new NodeReading(0, 1000 * KiB, 150 * KiB)], reading.Nodes);
        Assert.Equal((null, (string?)null), (reading.Stall, reading.Problem));
    }

    [Fact]
    public void A_node_without_memory_is_left_out()
    {
        _host.Node(0, total: 1000, free: 100);
        _host.Node(1, total: 0, free: 0);
        HostReading reading = _host.Reader.Read();
        Assert.Equal(0, Assert.Single(reading.Nodes).Node);
        Assert.Null(reading.Problem);
    }

    [Fact]
    public void Nodes_that_cannot_be_read_leave_the_host_and_a_host_that_cannot_leaves_nothing()
    {
        _host.Write("sys/devices/system/node/online", "0-1\n");
        _host.Write("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1000 kB\nNode 0 MemFree: 100 kB\n");
        _host.Whole(total: 2000, free: 900);
        HostReading reading = _host.Reader.Read();
        Assert.Equal([new NodeReading(0, 2000 * KiB, 900 * KiB)], reading.Nodes);
        Assert.Contains("node1/meminfo cannot be read", reading.Problem, StringComparison.Ordinal);
        Assert.Contains("is used, without nodes", reading.Problem, StringComparison.Ordinal);
        _host.Write("proc/meminfo", "MemTotal: all of it kB\n");
        reading = _host.Reader.Read();
        Assert.Empty(reading.Nodes);
        Assert.Contains("does not say MemTotal and MemFree", reading.Problem, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0.0)]
    [InlineData("full avg10=1.00 avg60=0.00 avg300=0.00 total=0\nsome avg10=100 avg60=0.00\n", 1.0)]
    [InlineData("some avg10=101.00\n", null)]
    [InlineData("some avg10=-1.00\n", null)]
    [InlineData("some avg10=NaN\n", null)]
    [InlineData("some avg10=1e1\n", null)]
    [InlineData("some avg60=1.00\n", null)]
    [InlineData("full avg10=1.00\n", null)]
    [InlineData("", null)]
    public void Stalls_are_a_share_or_not_known(string text, double? some) => Assert.Equal(some, HostMemoryReader.ReadStall(text)?.Some);

    [Theory]
    [InlineData("MemTotal: 10 kB\nMemFree: 99 kB", 10 * KiB)] // never more than there is
    [InlineData("MemTotal: 10 kB\nMemFree: 3 kB\nInactive(file): 18446744073709551615 kB", 3 * KiB)]
    [InlineData("MemTotal: 10 kB\nMemFree: 3 kB\nInactive(file): 4398046511104 kB\nSReclaimable: 4398046511104 kB", 10 * KiB)]
    [InlineData("MemTotal: 10 kB\nMemFree: 3 kB\nMemTotal: 99 kB\nMemFree: 9 kB", 3 * KiB)] // the first stands
    [InlineData("MemTotal: 10 kB\nMemFree: 3", null)]
    [InlineData("MemTotal: 0 kB\nMemFree: 0 kB", null)]
    [InlineData("MemTotal: 10 MB\nMemFree: 3 MB", null)]
    public void What_is_available_is_counted(string text, ulong? available) =>
        Assert.Equal(available, HostMemoryReader.ReadNode(0, text)?.AvailableBytes);

    [Fact]
    public void What_was_written_is_read_whatever_stands_around_it() =>
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<uint>().Generator.ArrayOf(4).ToArbitrary(),
            ArbMap.Default.ArbFor<NonNull<string>>(), (numbers, around) =>
            {
                string noise = around.Get.Replace("kB", "", StringComparison.Ordinal);
                string text = string.Create(CultureInfo.InvariantCulture,
                    $"{noise}\nNode 7 MemTotal: {numbers[0] + 1UL} kB\n{noise}\nNode 7 MemFree:  {numbers[1]} kB\n"
                    + $"Node 7 Inactive(file): {numbers[2]} kB\nNode 7 SReclaimable: {numbers[3]} kB\n{noise}");
                ulong total = (numbers[0] + 1UL) * KiB, sum = ((ulong)numbers[1] + numbers[2] + numbers[3]) * KiB;
                return HostMemoryReader.ReadNode(7, text) == new NodeReading(7, total, Math.Min(total, sum));
            }));

    [Fact]
    public void Damaged_files_give_bounded_readings_and_never_an_exception()
    {
        Random random = new(17);
        byte[] meminfo = Encoding.ASCII.GetBytes(HostFiles.Meminfo("Node 0 ", 123456, 23456, 3456, 456));
        byte[] pressure = "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n"u8.ToArray();
        int understood = 0;
        for (int i = 0; i < 20_000; i++)
        {
            NodeReading? node = HostMemoryReader.ReadNode(0, Damaged(meminfo));
            Assert.True(node is null || node.AvailableBytes <= node.TotalBytes);
            MemoryStall? stall = HostMemoryReader.ReadStall(Damaged(pressure));
            Assert.True(stall is null or { Some: >= 0 and <= 1, Full: >= 0 and <= 1 });
            understood += node is not null && stall is not null ? 1 : 0;
        }

        Assert.True(understood > 0);

        string Damaged(byte[] good)
        {
            byte[] bad = [.. good];
            for (int k = random.Next(1, 5); k > 0; k--)
            {
                bad[random.Next(bad.Length)] = random.Next(2) == 0 ? (byte)random.Next(256) : (byte)"0123456789 .-:=\nkBe"[random.Next(19)];
            }

            return Encoding.ASCII.GetString(bad, 0, random.Next(8) == 0 ? random.Next(bad.Length) : bad.Length);
        }
    }

    [Fact]
    public void No_more_than_a_bounded_part_of_a_file_is_read()
    {
        _host.Node(0, total: 1000, free: 100);
        _host.Write("proc/pressure/memory", new string('x', HostMemoryReader.LongestFile) + "\nsome avg10=50.00\n");
        HostReading reading = _host.Reader.Read();
        Assert.Null(reading.Stall);
        Assert.Single(reading.Nodes);
    }

    [Fact]
    public void This_host_can_be_read()
    {
        HostReading reading = new HostMemoryReader().Read();
        Assert.Null(reading.Problem);
        Assert.All(reading.Nodes, node => Assert.InRange(node.AvailableBytes, 1UL, node.TotalBytes));
    }
}
