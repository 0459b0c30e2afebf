using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Memory;
using Vmm.Testing;

namespace Vmm.Devices.Tests.Virtio.Balloon;

public sealed class BalloonPagesTests
{
    [Fact]
    public void The_account_agrees_with_a_set_of_frames()
    {
        using VnodeMemory ram = VnodeMemory.Create(
            new VnodePlacement(0, new ByteSize((ulong)(1 << 20)), new ByteSize(4096), null, []), HostTopology.Unknown);
        GuestMemory memory = new([ram.Region(new(0), new ByteSize((ulong)(512 << 10)), 0), ram.Region(
            new(1 << 20), new ByteSize((ulong)(512 << 10)), 512 << 10)]);
        bool IsRam(uint frame) => frame is < 128 or (>= 256 and < 384);
        Gen<(bool Inflate, int First, int Count)> step = Gen.Choose(0, 1)
            .SelectMany(i => Gen.Choose(0, 400).SelectMany(f => Gen.Choose(0, 40).Select(c => (i == 0, f, c))));
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
    public void Huge_pages_stay_with_the_guest()
    {
        const ulong size = 64 << 10; // any greater page size shows it
        using VnodeMemory ram = VnodeMemory.Create(
            new VnodePlacement(0, new ByteSize(4 << 20), new ByteSize(4096), null, []), HostTopology.Unknown);
        GuestMemory memory = new([new GuestRegion(
            new(0), new ByteSize((ulong)(4 << 20)), ram.Region(new(0), new ByteSize((ulong)(4 << 20)), 0).HostAddress, 0, size)]);
        Assert.True(memory.TryGetSpan(new(0), 4 << 20, out Span<byte> all));
        all.Fill(1);
        BalloonPages pages = new(memory);
        pages.Inflate([.. Enumerable.Range(16, 16).Select(f => (uint)f)]);
        pages.Report(new(size / 2), size * 2);
        Assert.Equal((16L, 0L, 0L), (pages.Count, pages.DiscardedBytes, pages.Refused));
        Assert.Equal(1024, ram.ResidentPages().Values.Sum(p => (long)p.Value));
        Assert.False(all.ContainsAnyExcept((byte)1));
    }
}
