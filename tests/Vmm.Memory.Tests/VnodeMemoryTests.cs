using Vmm.Testing;
using Vmm.Interop;

namespace Vmm.Memory.Tests;

public class VnodeMemoryTests
{
    private const ulong MiB = 1 << 20;
    private static readonly HostTopology s_host = HostTopology.Read();

    [Fact]
    public void One_vnode_serves_several_extents_of_guest_memory()
    {
        using VnodeMemory vnode = VnodeMemory.Create(Plain(3, 4 * MiB), s_host);
        GuestMemory memory = new([vnode.Region(new GuestAddress(0x100000), new ByteSize(MiB), 0), vnode.Region(
            new GuestAddress(0x1_0000_0000), ByteSize.MiB(3), MiB)]);
        Assert.All(memory.Regions, r => Assert.Equal(3, r.Vnode));
        Assert.Equal(memory.Regions[0].HostAddress + (nint)MiB, memory.Regions[1].HostAddress);
        Assert.True(memory.TryWrite(new GuestAddress(0x1_002f_fff8), 0x1122334455667788UL));
        Assert.True(memory.TryRead(new GuestAddress(0x1_002f_fff8), out ulong value));
        Assert.Equal(0x1122334455667788UL, value);
        Assert.False(memory.Contains(new GuestAddress(0x1_0030_0000), 1));
    }

    [Fact]
    public void The_memfd_is_named_after_its_vnode_and_stays_out_of_core_dumps()
    {
        using VnodeMemory vnode = VnodeMemory.Create(Plain(5, MiB), s_host);
        string[] lines = File.ReadAllLines("/proc/self/smaps");
        int at = Array.FindIndex(lines, l => l.Contains("/memfd:vmm:vnode5", StringComparison.Ordinal));
        Assert.True(at >= 0);
        string flags = lines.Skip(at).First(l => l.StartsWith("VmFlags:", StringComparison.Ordinal));
        Assert.Contains(" dd", flags, StringComparison.Ordinal);
    }

    [Fact]
    public void Only_touched_pages_are_resident_and_they_lie_on_the_node_asked_for()
    {
        int node = s_host.Nodes.First(n => n.TotalBytes > 0).Id;
        using VnodeMemory vnode = VnodeMemory.Create(
            new VnodePlacement(0, ByteSize.MiB(8), new ByteSize(4096), MemoryPolicyMode.Bind, [node]), s_host);
        Assert.Empty(vnode.ResidentPages());
        GuestMemory memory = new([vnode.Region(new GuestAddress(0), ByteSize.MiB(8), 0)]);
        for (ulong page = 0; page < 100; page++)
        {
            Assert.True(memory.TryWrite(new GuestAddress(page * 8192), (byte)1));
        }

        KeyValuePair<int, PageCount> resident = Assert.Single(vnode.ResidentPages());
        Assert.Equal(node, resident.Key);
        Assert.Equal(100UL, resident.Value.Value);
    }

    [Fact]
    public void A_vnode_that_is_shared_out_has_a_policy_for_each_part_until_it_gets_another_and_can_have_them_back()
    {
        int node = s_host.Nodes.First(n => n.TotalBytes > 0).Id;
        NodeShare[] shares = [new(node, ByteSize.MiB(2)), new(63, ByteSize.Zero), new(node, ByteSize.MiB(1))];
        VnodePlacement placement = new(6, ByteSize.MiB(8), new ByteSize(4096), MemoryPolicyMode.Bind, [node]) { Shares = shares };
        using VnodeMemory vnode = VnodeMemory.Create(placement, s_host);
        Assert.Same(shares, vnode.Placement.Shares);
        if (!s_host.HasNuma)
        {
            return;
        }

        Assert.Contains($" bind:{node} file=/memfd:vmm:vnode6", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);
        vnode.SetPolicy(MemoryPolicyMode.Preferred, [node]);
        Assert.Null(vnode.Placement.Shares);
        Assert.Contains($" prefer:{node} file=/memfd:vmm:vnode6", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);
        vnode.Place(placement);
        Assert.Same(shares, vnode.Placement.Shares);
        Assert.Contains($" bind:{node} file=/memfd:vmm:vnode6", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);

        // Each part has its own: the second goes to a node that does not exist, which the kernel refuses.
        KernelException refused = Assert.Throws<KernelException>(
            () => vnode.Place(placement with { Shares = [new(node, ByteSize.MiB(2)), new(63, ByteSize.MiB(6))] }));
        Assert.Contains("mbind", refused.Message, StringComparison.Ordinal);
        placement =
            placement with { Policy = MemoryPolicyMode.Preferred, Shares = [new(node, ByteSize.MiB(2)), new(node, ByteSize.MiB(3))] };
        vnode.SetPolicy(null, []);
        vnode.Place(placement);
        // whole: what the shares leave over is the last one's
        Assert.Single(File.ReadAllLines("/proc/self/numa_maps"), l => l.Contains("/memfd:vmm:vnode6", StringComparison.Ordinal));
    }

    [Fact]
    public void A_host_node_that_does_not_exist_is_refused_by_number()
    {
        VnodePlacement placement = new(1, new ByteSize(MiB), new ByteSize(4096), MemoryPolicyMode.Bind, [63]);
        string message = Assert.Throws<ArgumentException>(() => VnodeMemory.Create(placement, s_host)).Message;
        Assert.Contains("host node 63 does not exist", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Disposal_unmaps_the_memory()
    {
        VnodeMemory vnode = VnodeMemory.Create(Plain(77, MiB), s_host);
        Assert.Contains("vmm:vnode77", File.ReadAllText("/proc/self/maps"), StringComparison.Ordinal);
        vnode.Dispose();
        Assert.DoesNotContain("vmm:vnode77", File.ReadAllText("/proc/self/maps"), StringComparison.Ordinal);
        vnode.Dispose();
    }

    [Fact]
    public void Extents_outside_the_vnode_are_refused()
    {
        using VnodeMemory vnode = VnodeMemory.Create(Plain(0, MiB), s_host);
        Assert.Throws<ArgumentOutOfRangeException>(() => vnode.Region(default, new ByteSize(MiB + 1), 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => vnode.Region(default, new ByteSize(1), MiB));
        Assert.Throws<ArgumentOutOfRangeException>(() => vnode.Region(default, new ByteSize(2), ulong.MaxValue));
    }

    [Theory]
    [InlineData(2048, "3", 4, false)]
    [InlineData(2048, "4", 4, true)]
    [InlineData(1048576, "0", 1, false)]
    public void Huge_pages_are_counted_before_they_are_asked_for(int kib, string free, ulong pages, bool enough)
    {
        using FakeHost host = FakeHost.WithNodes((0, "0", 1, 1, "10 20"), (1, "1", 1, 1, "20 10"));
        host.Write($"sys/devices/system/node/node0/hugepages/hugepages-{kib}kB/free_hugepages", "1000\n");
        host.Write($"sys/devices/system/node/node1/hugepages/hugepages-{kib}kB/free_hugepages", free + "\n");
        ulong size = (ulong)kib * 1024;
        VnodePlacement placement = new(0, new ByteSize(pages * size), new ByteSize(size), MemoryPolicyMode.Bind, [1]);
        Exception? refused = Record.Exception(() => VnodeMemory.Create(placement, host.Read(), host.Sysfs).Dispose());

        // Where the count is enough the kernel decides, and this machine may have no pool: anything but the early refusal is right.
        Assert.Equal(enough, refused is not ArgumentException);
        if (!enough)
        {
            Assert.Contains($"{pages} huge pages", refused!.Message, StringComparison.Ordinal);
            Assert.Contains($"{free} are free", refused.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_thread_can_be_pinned_to_one_cpu()
    {
        int cpu = s_host.Nodes.SelectMany(n => n.Cpus).Max();
        string allowed = "";
        Thread thread = new(() =>
        {
            ThreadPlacement.PinCurrent([cpu]);
            allowed = File.ReadLines("/proc/thread-self/status").First(l => l.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal));
        });
        thread.Start();
        thread.Join();
        Assert.Equal($"Cpus_allowed_list:\t{cpu}", allowed);
        Assert.Throws<KernelException>(() => ThreadPlacement.PinCurrent([4000]));
    }

    [Fact]
    public void Vnodes_side_by_side_are_one_range_for_devices()
    {
        using AddressReservation addresses = new(8 * MiB, 4096);
        using VnodeMemory first = VnodeMemory.Create(Plain(0, 3 * MiB), s_host, within: addresses);
        using VnodeMemory second = VnodeMemory.Create(Plain(1, 5 * MiB), s_host, within: addresses, offset: 3 * MiB);
        GuestMemory memory = new([
            first.Region(new GuestAddress(0), ByteSize.MiB(3), 0),
            second.Region(new GuestAddress(3 * MiB), ByteSize.MiB(1), 0),
            second.Region(new GuestAddress(64 * MiB), ByteSize.MiB(4), MiB),
        ]);
        byte[] pattern = [.. Enumerable.Range(1, 100).Select(i => (byte)i)];
        Assert.True(memory.TryWrite(new GuestAddress((3 * MiB) - 50), pattern));
        byte[] tail = new byte[50];
        Assert.True(memory.TryRead(new GuestAddress(3 * MiB), tail));
        Assert.Equal(pattern[50..], tail);
        Assert.True(memory.TryGetHostAddress(new GuestAddress(0), 4 * MiB, out nint host));
        Assert.Equal(addresses.Address, host);
        Assert.False(memory.Contains(new GuestAddress((4 * MiB) - 1), 2)); // the next bytes here belong to 64 MiB
        Assert.False(memory.Contains(new GuestAddress(0), 8 * MiB));
        Assert.Equal((1UL, 1UL), (first.ResidentPages().Single().Value.Value, second.ResidentPages().Single().Value.Value));
    }

    [Fact]
    public void Addresses_outside_a_reservation_are_refused_and_a_closed_vnode_leaves_its_place_reserved()
    {
        using AddressReservation addresses = new(2 * MiB, 1 << 21);
        Assert.Equal(0UL, (ulong)addresses.Address % (1 << 21));
        Assert.Throws<ArgumentOutOfRangeException>(() => VnodeMemory.Create(Plain(0, 2 * MiB), s_host, within: addresses, offset: 4096));
        VnodeMemory.Create(Plain(0, 2 * MiB), s_host, within: addresses).Dispose();
        using VnodeMemory again = VnodeMemory.Create(Plain(0, 2 * MiB), s_host, within: addresses);
        Assert.Empty(again.ResidentPages());
    }

    [Fact]
    public void A_policy_can_be_changed_and_pages_moved_while_their_content_stays()
    {
        int node = s_host.Nodes.First(n => n.TotalBytes > 0).Id;
        using VnodeMemory vnode = VnodeMemory.Create(Plain(0, 4 * MiB), s_host);
        if (!s_host.HasNuma)
        {
            Assert.Throws<KernelException>(() => vnode.SetPolicy(MemoryPolicyMode.Bind, [node]));
            return;
        }

        GuestMemory memory = new([vnode.Region(new GuestAddress(0), ByteSize.MiB(4), 0)]);
        Assert.True(memory.TryWrite(new GuestAddress(0x5000), 0x1234_5678_9abc_def0UL));
        vnode.SetPolicy(MemoryPolicyMode.Bind, [node]);
        Assert.Equal((MemoryPolicyMode.Bind, node), (vnode.Placement.Policy, vnode.Placement.HostNodes.Single()));
        Assert.Contains($" bind:{node} file=/memfd:vmm:vnode0", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);
        Assert.Equal(0, vnode.Move([5], node));
        int[] nodes = new int[16];
        vnode.Locate(0, nodes);
        Assert.Equal((node, -1), (nodes[5], nodes[6]));
        Assert.Throws<KernelException>(() => vnode.SetPolicy(MemoryPolicyMode.Bind, [60]));
        Assert.Equal(node, vnode.Placement.HostNodes.Single());
        Assert.Equal(19, vnode.Move([5], 60)); // ENODEV
        vnode.SetPolicy(null, []);
        Assert.Contains(" default file=/memfd:vmm:vnode0", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);
        Assert.True(memory.TryRead(new GuestAddress(0x5000), out ulong value));
        Assert.Equal(0x1234_5678_9abc_def0UL, value);
        PageMigrationResult result =
            new PageMigration([vnode], [node], interleave: false, new PageMigrationOptions()).Run(null, CancellationToken.None);
        Assert.Equal((0UL, 0UL), (result.Moved.Bytes, result.LeftBytes.Bytes)); // it was there already
    }

    [Fact]
    public void Huge_pages_are_there_from_the_start_or_refused_with_the_numbers()
    {
        const string Pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            Surplus = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        string before = File.Exists(Pool) ? File.ReadAllText(Pool) : "none";
        try
        {
            File.WriteAllText(Pool, "8");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return; // needs root and a kernel with a pool of 2 MiB pages
        }

        try
        {
            if (!string.Equals(File.ReadAllText(Surplus).Trim(), "8", StringComparison.Ordinal))
            {
                return; // memory is too scattered, or somebody else uses the pool
            }

            IReadOnlyList<int> nodes = s_host.HasNuma ? [s_host.Nodes[0].Id] : [];
            VnodePlacement six = new(0, ByteSize.MiB(12), ByteSize.MiB(2), nodes.Count > 0 ? MemoryPolicyMode.Bind : null, nodes);
            using (VnodeMemory vnode = VnodeMemory.Create(six, s_host))
            {
                Assert.Equal("2", File.ReadAllText(Surplus).Trim()); // taken, though nobody touched them
                Assert.Contains(
                    "6 huge pages of 2 MiB are needed, 2 are free",
                    Assert.Throws<ArgumentException>(() => VnodeMemory.Create(six, s_host)).Message,
                    StringComparison.Ordinal);
                int[] found = new int[6];
                vnode.Locate(0, found);
                Assert.All(found, node => Assert.Equal(nodes.Count > 0 ? nodes[0] : 0, node));

                // A part takes nothing before it is populated, and says when the pool has too few.
                using VnodeMemory part = VnodeMemory.Create(six, s_host, part: ".hot");
                Assert.Equal("2", File.ReadAllText(Surplus).Trim());
                Assert.True(part.TryPopulate(2 << 20, 4 << 20, out _));
                Assert.False(part.TryPopulate(6 << 20, 4 << 20, out ulong populated));
                Assert.Equal((0UL, "0"), (populated, File.ReadAllText(Surplus).Trim()));
                GuestMemory memory = new([part.Region(new GuestAddress(2 << 20), ByteSize.MiB(4), 2 << 20)]);
                Assert.True(memory.TryWrite(new GuestAddress(2 << 20), 1));
                // the guest's huge pages stay its own
                Assert.Equal(0, memory.Discard(new GuestAddress(2 << 20), 4 << 20, out ulong discarded));
                Assert.Equal((0UL, "0"), (discarded, File.ReadAllText(Surplus).Trim()));
            }

            Assert.Equal("8", File.ReadAllText(Surplus).Trim());
        }
        finally
        {
            File.WriteAllText(Pool, before.Trim());
        }
    }

    private static VnodePlacement Plain(int vnode, ulong bytes) => new(vnode, new ByteSize(bytes), new ByteSize(4096), null, []);
}
