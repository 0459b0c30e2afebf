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
        GuestMemory memory = new([vnode.Region(new GuestAddress(0x100000), new ByteSize(MiB), 0), vnode.Region(new GuestAddress(0x1_0000_0000), ByteSize.MiB(3), MiB)]);
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
        using VnodeMemory vnode = VnodeMemory.Create(new VnodePlacement(0, ByteSize.MiB(8), new ByteSize(4096), MemoryPolicyMode.Bind, [node]), s_host);
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

    private static VnodePlacement Plain(int vnode, ulong bytes) => new(vnode, new ByteSize(bytes), new ByteSize(4096), null, []);
}
