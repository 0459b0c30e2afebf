namespace Vmm.Memory.Tests;

public class HostTopologyTests
{
    [Fact]
    public void A_kernel_without_numa_has_one_node_with_everything()
    {
        using FakeHost host = FakeHost.WithoutNuma("0-5", 1000, 400);
        HostTopology topology = host.Read();
        HostNode node = Assert.Single(topology.Nodes);
        Assert.False(topology.HasNuma);
        Assert.Equal(0, node.Id);
        Assert.Equal([0, 1, 2, 3, 4, 5], node.Cpus);
        Assert.Equal((1000UL * 1024, 400UL * 1024), (node.TotalBytes, node.FreeBytes));
        Assert.Equal([10], node.Distances);
    }

    [Fact]
    public void Two_nodes_are_read_with_cpus_memory_and_distances()
    {
        using FakeHost host = FakeHost.WithNodes((0, "0-1,4", 2048, 1024, "10 21"), (1, "2-3", 4096, 4000, "21 10"));
        HostTopology topology = host.Read();
        Assert.True(topology.HasNuma);
        Assert.Equal([0, 1], topology.Nodes.Select(n => n.Id));
        Assert.Equal([0, 1, 4], topology.Nodes[0].Cpus);
        Assert.Equal([2, 3], topology.Nodes[1].Cpus);
        Assert.Equal([21, 10], topology.Nodes[1].Distances);
        Assert.Equal((4096UL * 1024, 4000UL * 1024), (topology.Nodes[1].TotalBytes, topology.Nodes[1].FreeBytes));
    }

    [Fact]
    public void Node_numbers_may_have_holes_and_nodes_may_have_memory_only()
    {
        using FakeHost host = FakeHost.WithNodes(
            (0, "0", 1, 1, "10 20 20 30"), (2, "1", 1, 1, "20 10 30 20"), (3, "", 8, 8, "20 30 10 40"), (7, "", 8, 8, "30 20 40 10"));
        HostTopology topology = host.Read();
        Assert.Equal([0, 2, 3, 7], topology.Nodes.Select(n => n.Id));
        Assert.Empty(topology.Nodes[3].Cpus);
        Assert.Equal(8UL * 1024, topology.Nodes[3].TotalBytes);
    }

    [Theory]
    [InlineData("online", "0-")]
    [InlineData("online", "")]
    [InlineData("online", "0-99999999")]
    [InlineData("node0/cpulist", "zero")]
    [InlineData("node0/distance", "10 x")]
    public void Text_that_cannot_be_understood_is_an_error_that_names_the_file(string file, string text)
    {
        using FakeHost host = FakeHost.WithNodes((0, "0", 1, 1, "10"));
        host.Write($"sys/devices/system/node/{file}", text);
        Assert.Contains(file, Assert.Throws<InvalidDataException>(host.Read).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("node0/cpulist")]
    [InlineData("node0/meminfo")]
    [InlineData("node0/distance")]
    public void A_missing_file_is_an_error_that_names_it(string file)
    {
        using FakeHost host = FakeHost.WithNodes((0, "0", 1, 1, "10"));
        host.Remove($"sys/devices/system/node/{file}");
        Assert.Contains(file, Assert.Throws<InvalidDataException>(host.Read).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void This_machine_can_be_read()
    {
        HostTopology topology = HostTopology.Read();
        Assert.NotEmpty(topology.Nodes.SelectMany(n => n.Cpus));
        Assert.All(topology.Nodes, n => Assert.True(n.TotalBytes >= n.FreeBytes));
        Assert.Contains(topology.Nodes, n => n.TotalBytes > 0);
    }

    [Fact]
    public void Cpus_near_a_node_are_its_own_or_those_of_the_nearest_node_that_has_any()
    {
        using FakeHost fake = FakeHost.WithNodes((0, "0-1", 1, 1, "10 20 30"), (1, "2-3", 1, 1, "20 10 15"), (2, "", 1, 1, "30 15 10"));
        HostTopology host = fake.Read();
        Assert.Equal([0, 1], host.CpusNear([0]));
        Assert.Equal([0, 1, 2, 3], host.CpusNear([1, 0]));
        Assert.Equal([2, 3], host.CpusNear([2])); // memory only
        Assert.Equal([0, 1], host.CpusNear([2, 0]));
        Assert.Empty(host.CpusNear([9]));
    }

    [Fact]
    public void Huge_pages_are_counted_per_node_and_size()
    {
        using FakeHost fake = FakeHost.WithNodes((0, "0", 1, 1, "10 20"), (1, "1", 1, 1, "20 10"));
        Assert.Empty(HugePagePool.Read(fake.Sysfs));
        fake.Write("sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "8\n");
        fake.Write("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "3\n");
        fake.Write("sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "1\n");
        Assert.Equal([new HugePagePool(0, 1UL << 30, 1, 0), new HugePagePool(1, 2 << 20, 8, 3)], HugePagePool.Read(fake.Sysfs));
        using FakeHost flat = FakeHost.WithoutNuma("0", 1, 1);
        flat.Write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5\n");
        Assert.Equal([new HugePagePool(0, 2 << 20, 5, 0)], HugePagePool.Read(flat.Sysfs));
    }
}
