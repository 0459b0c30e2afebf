using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Interop;

namespace Vmm.Memory.Tests;

public sealed class NumaMapsTests
{
    [Fact]
    public void Bytes_per_vnode_and_node_whatever_the_page_size_and_policy()
    {
        IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>> maps = NumaMaps.Parse("""
            7f0000000000 default file=/usr/lib/libc.so.6 mapped=20 N0=20 kernelpagesize_kB=4
            7f0100000000 bind:0 file=/memfd:vmm:vnode0\040(deleted) dirty=300 active=0 N0=100 N1=200 kernelpagesize_kB=4
            7f0200000000 prefer (many):0-1 file=/memfd:vmm:vnode1\040(deleted) huge dirty=3 N1=3 kernelpagesize_kB=2048
            7f0300000000 bind:1 file=/memfd:vmm:vnode0.hot\040(deleted) dirty=50 N1=50 kernelpagesize_kB=4
            7f0400000000 interleave:0-1 file=/memfd:vmm:vnode2\040(deleted)
            7f0500000000 default anon=3 dirty=3 N0=3 kernelpagesize_kB=4
            """);
        Assert.Equal([0, 1, 2], maps.Keys);
        Assert.Equal([new(0, 100UL * 4096), new(1, 250UL * 4096)], maps[0]);
        Assert.Equal([new(1, 3UL << 21)], maps[1]);
        Assert.Empty(maps[2]);
    }

    [Fact]
    public void What_the_kernel_writes_about_this_process_agrees_with_what_it_says_page_by_page()
    {
        HostTopology host = HostTopology.Read();
        if (!File.Exists("/proc/self/numa_maps"))
        {
            Assert.False(host.HasNuma);
            return;
        }

        using VnodeMemory vnode = VnodeMemory.Create(
            new VnodePlacement(47, ByteSize.MiB(4), new ByteSize(4096), MemoryPolicyMode.Preferred, [host.Nodes[0].Id]), host);
        GuestMemory memory = new([vnode.Region(new GuestAddress(0), ByteSize.MiB(4), 0)]);
        for (ulong page = 0; page < 200; page++)
        {
            Assert.True(memory.TryWrite(new GuestAddress(page * 12288), (byte)1));
        }

        IReadOnlyDictionary<int, ulong> maps = NumaMaps.Parse(File.ReadAllText("/proc/self/numa_maps"))[47];
        Assert.Equal(200UL * 4096, maps.Values.Aggregate(0UL, (a, b) => a + b));
        Assert.Equal(vnode.ResidentPages().ToDictionary(p => p.Key, p => p.Value.Value * 4096), maps.ToDictionary());
    }

    [Fact]
    public void Counts_come_back_as_written() =>
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<uint[]>(), counts =>
        {
            string line = "7f0 default file=/memfd:vmm:vnode9 dirty=1"
                + string.Concat(counts.Take(64).Select((c, i) => string.Create(CultureInfo.InvariantCulture, $" N{i}={c}")))
                + " kernelpagesize_kB=4";
            return NumaMaps.Parse(line)[9].Values.SequenceEqual(counts.Take(64).Select(c => c * 4096UL));
        }));

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Damaged_text_is_read_as_far_as_it_makes_sense()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "20000", CultureInfo.InvariantCulture);
        Random random = new(11);
        const string Good = "7f01 bind:0 file=/memfd:vmm:vnode0 (deleted) dirty=300 N0=100 N1=200 kernelpagesize_kB=4\n";
        for (int i = 0; i < iterations; i++)
        {
            char[] text = (Good + Good).ToCharArray();
            for (int k = random.Next(8); k >= 0; k--)
            {
                text[random.Next(text.Length)] = " N=0123456789\n:kBf\0é"[random.Next(20)];
            }

            foreach ((int vnode, IReadOnlyDictionary<int, ulong> nodes) in NumaMaps.Parse(new string(text)))
            {
                Assert.InRange(vnode, 0, 1023);
                Assert.All(nodes, n => Assert.InRange(n.Key, 0, 1023));
            }
        }
    }
}
