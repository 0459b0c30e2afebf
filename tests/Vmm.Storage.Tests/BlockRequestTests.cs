using Vmm.Io;

namespace Vmm.Storage.Tests;

public sealed class BlockRequestTests
{
    [Fact]
    public void A_request_under_way_cannot_be_prepared_submitted_or_ended_twice()
    {
        using MemoryDiskBackend disk = new(4096);
        using DiskDriver driver = new(disk);
        BlockRequest request = driver[0];
        Assert.Throws<InvalidOperationException>(() => driver.Node.Submit(request)); // not prepared
        request.Prepare(BlockKind.Flush);
        request.Prepare(BlockKind.Flush); // not submitted yet
        driver.Node.Submit(request);
        Assert.Throws<InvalidOperationException>(() => request.Prepare(BlockKind.Flush));
        Assert.Throws<InvalidOperationException>(() => driver.Node.Submit(request));
        Assert.Throws<InvalidOperationException>(request.Hold);
        driver.WaitForAll();
        Assert.Equal(1, driver.Ends);
        Assert.Throws<InvalidOperationException>(() => request.Complete(DiskStatus.Ok));
        Assert.Throws<InvalidOperationException>(request.Hold);
        Assert.Equal(1, driver.Ends);
    }

    [Fact]
    public void Nodes_hear_of_the_end_in_the_reverse_order_and_may_change_the_status()
    {
        using MemoryDiskBackend disk = new(4096);
        List<string> heard = [];
        using DiskDriver driver = new(loop => new Listener("outer", heard, new Listener("inner", heard, disk.CreateNode(loop, 4))), 4);
        Assert.Equal(DiskStatus.NotSupported, driver.Flush());
        Assert.Equal(["inner Ok", "outer NoSpace"], heard);
    }

    private sealed class Listener(string name, List<string> heard, IBlockNode inner) : IBlockNode, IBlockOwner
    {
        public BlockGeometry Geometry => inner.Geometry;

        public int InFlight => inner.InFlight;

        public void Submit(BlockRequest request)
        {
            request.PassThrough(this);
            inner.Submit(request);
        }

        public bool WritesZeroesAsData(bool mayUnmap) => inner.WritesZeroesAsData(mayUnmap);

        public void Completed(BlockRequest request, DiskStatus status)
        {
            heard.Add($"{name} {status}");
            request.Complete(name == "inner" ? DiskStatus.NoSpace : DiskStatus.NotSupported);
        }

        public ValueTask FlushAndCloseAsync() => inner.FlushAndCloseAsync();

        public void Dispose() => inner.Dispose();
    }
}
