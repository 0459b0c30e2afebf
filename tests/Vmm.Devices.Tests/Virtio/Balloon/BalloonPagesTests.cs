using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio.Balloon;

public sealed class BalloonPagesTests
{
    [Fact]
    public void The_account_agrees_with_a_set_of_frames()
    {
        using VnodeMemory ram = VnodeMemory.Create(new VnodePlacement(0, new ByteSize((ulong)(1 << 20)), new ByteSize(4096), null, []), HostTopology.Unknown);
        GuestMemory memory = new([ram.Region(new(0), new ByteSize((ulong)(512 << 10)), 0), ram.Region(new(1 << 20), new ByteSize((ulong)(512 << 10)), 512 << 10)]);
        bool IsRam(uint frame) => frame is < 128 or (>= 256 and < 384);
        Gen<(bool Inflate, int First, int Count)> step = Gen.Choose(0, 1).SelectMany(i => Gen.Choose(0, 400).SelectMany(f => Gen.Choose(0, 40).Select(c => (i == 0, f, c))));
        Check.QuickThrowOnFailure(Prop.ForAll(step.ListOf().ToArbitrary(), steps =>
        {
            BalloonPages pages = new(memory);
            HashSet<uint> model = [];
            foreach ((bool inflate, int first, int count) in steps)
            {
                uint[] frames = [.. Enumerable.Range(first, count).Select(f => (uint)f)];
                if (inflate)
                {
                    pages.Inflate(frames);
                    model.UnionWith(frames.Where(IsRam));
                }
                else
                {
                    pages.Deflate(frames);
                    model.ExceptWith(frames);
                }

                Assert.Equal(model.Count, pages.Count);
            }

            Assert.Equal(0, pages.Refused);
        }));
    }

    [Fact]
    public void A_huge_page_goes_with_the_last_of_its_small_ones()
    {
        const ulong size = 64 << 10; // any greater page size shows it; the kernel discards in small pages here
        using VnodeMemory ram = VnodeMemory.Create(new VnodePlacement(0, new ByteSize((4 << 20) + size), new ByteSize(4096), null, []), HostTopology.Unknown);
        nint host = ram.Region(new(0), new ByteSize((ulong)(4 << 20)), 0).HostAddress;
        host += (nint)((size - ((ulong)host % size)) % size);
        GuestMemory memory = new([new GuestRegion(new(0), new ByteSize((ulong)(4 << 20)), host, 0, size)]);
        Assert.True(memory.TryGetSpan(new(0), 4 << 20, out Span<byte> all));
        all.Fill(1);
        BalloonPages pages = new(memory);
        pages.Inflate([.. Enumerable.Range(16, 15).Select(f => (uint)f)]);
        Assert.Equal((15L, 0L), (pages.Count, pages.DiscardedBytes));
        pages.Inflate([31]);
        Assert.Equal((16L, (long)size), (pages.Count, pages.DiscardedBytes));
        Assert.Equal(size / 4096, 1024 - (ulong)ram.ResidentPages().Values.Sum(p => (long)p.Value));
        pages.Report(new(size / 2), size * 2); // one whole page inside
        Assert.Equal((long)size * 2, pages.DiscardedBytes);
        Assert.Equal((1, 0), (all[0], all[(int)size]));
    }
}
