using System.Text.RegularExpressions;

namespace Vmm.Host.Tests;

/// <summary>Unmodified Debian kernels in our VMM in the test host; the guest's own tools are the judges.</summary>
[Trait("Tier", "host")]
public sealed partial class StockKernelTests(MatrixRun run) : IClassFixture<MatrixRun>
{
    public static TheoryData<string> Names => [.. MatrixRun.Cases.Select(c => c.Name)];

    /// <summary>A single vnode is bound nowhere: the kernel places it.</summary>
    public static TheoryData<string> NumaNames => [.. MatrixRun.Cases.Where(c => c.Vnodes > 1).Select(c => c.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Debian_kernel_reaches_user_space_and_powers_off(string name)
    {
        GuestResult guest = run.Result(name);
        Assert.True(guest.Said("done").Any(), guest.Tail);
        Assert.Equal(0, guest.ExitCode);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Guest_sees_the_nodes_of_its_spec(string name)
    {
        GuestCase given = MatrixRun.Cases.Single(c => c.Name == name);
        GuestResult guest = run.Result(name);
        Assert.Equal($"GUEST cpus {given.Cpus}", guest.Said("cpus").Single());
        string[] nodes = [.. guest.Said("node")];
        Assert.Equal(given.Vnodes, nodes.Length);
        int perNode = given.Cpus / given.Vnodes;
        for (int node = 0; node < nodes.Length; node++)
        {
            Match line = NodeLine().Match(nodes[node]);
            Assert.True(line.Success, nodes[node]);
            string cpus = perNode == 1 ? $"{node}" : $"{node * perNode}-{((node + 1) * perNode) - 1}";
            Assert.Equal(cpus, line.Groups["cpus"].Value);
            // The kernel keeps a part of the memory for itself before it counts.
            int kib = int.Parse(line.Groups["kb"].Value);
            int spec = given.MemoryMiB * 1024 / given.Vnodes;
            Assert.InRange(kib, spec * 3 / 4, spec);
            Assert.Equal(
                string.Join(' ', Enumerable.Range(0, nodes.Length).Select(to => to == node ? 10 : 20)), line.Groups["distance"].Value);
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Guest_writes_and_verifies_its_disk_and_reads_entropy(string name)
    {
        GuestResult guest = run.Result(name);
        Assert.True(guest.Said("disk verified").Any(), guest.Tail);
        Assert.True(guest.Said("hwrng ok").Any(), guest.Tail);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Guest_log_has_no_acpi_pci_or_virtio_warning(string name)
    {
        Assert.True(int.Parse(run.Result(name).Said("lines").Single().Split(' ')[2]) > 100, "the guest's log was empty");
        string[] complaints = [.. run.Result(name).Dmesg.Split('\n').Where(l => Complaint().IsMatch(l))];
        Assert.True(complaints.Length == 0, string.Join('\n', complaints));
    }

    [Theory]
    [MemberData(nameof(NumaNames))]
    public void Memory_of_each_vnode_lies_on_its_host_node(string name)
    {
        GuestCase given = MatrixRun.Cases.Single(c => c.Name == name);
        string maps = run.Result(name).NumaMaps;
        for (int vnode = 0; vnode < given.Vnodes; vnode++)
        {
            string[] lines = [.. maps.Split('\n').Where(l => l.Contains($"vmm:vnode{vnode}", StringComparison.Ordinal))];
            Assert.True(lines.Length > 0, $"numa_maps names no memory of vnode {vnode}:\n{maps}");
            long here = 0, elsewhere = 0;
            foreach (Match pages in lines.SelectMany(l => NodePages().Matches(l)))
            {
                long count = long.Parse(pages.Groups["pages"].Value);
                if (int.Parse(pages.Groups["node"].Value) == vnode)
                {
                    here += count;
                }
                else
                {
                    elsewhere += count;
                }
            }

            Assert.True(here > 0 && elsewhere == 0, $"vnode {vnode}: {here} pages on host node {vnode}, {elsewhere} elsewhere\n{maps}");
        }
    }

    [Fact]
    public void Guest_sees_the_threads_and_the_memory_performance_of_its_spec()
    {
        GuestResult guest = run.Result(MatrixRun.Packed.Name);
        Assert.Equal(
            ["GUEST place 0 socket 0 siblings 0-1 package 0-1", "GUEST place 1 socket 0 siblings 0-1 package 0-1",
                "GUEST place 2 socket 1 siblings 2-3 package 2-3", "GUEST place 3 socket 1 siblings 2-3 package 2-3"],
            guest.Said("place"));
        Assert.Equal(
            ["GUEST performance 0 latency 80 bandwidth 20000", "GUEST performance 1 latency 95 bandwidth 17000"],
            guest.Said("performance"));
    }

    [GeneratedRegex(@"^GUEST node (?<node>\d+) cpus (?<cpus>\S*) kb (?<kb>\d+) distance (?<distance>[\d ]+)$")]
    private static partial Regex NodeLine();

    [GeneratedRegex(@"N(?<node>\d+)=(?<pages>\d+)")]
    private static partial Regex NodePages();

    [GeneratedRegex(
        @"(ACPI|PCI|pci|virtio|SRAT|NUMA).*(\[Firmware|[Ww]arn|WARN|[Ee]rror|BUG|invalid|fail|conflict|can't claim|bogus)|"
        + @"\[Firmware (Bug|Warn)|Call Trace|------------\[ cut here")]
    private static partial Regex Complaint();
}
