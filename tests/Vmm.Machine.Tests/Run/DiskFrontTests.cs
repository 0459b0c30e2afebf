using Vmm.Devices.Virtio.Blk;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Machine.Tests.Run;

public sealed class DiskFrontTests
{
    [Theory]
    [InlineData(1, 4, 1)]
    [InlineData(4, 1, 1)] // a guest with one CPU uses one queue
    [InlineData(4, 4, 4)]
    [InlineData(4, 16, 4)]
    [InlineData(64, 3, 3)]
    public void Each_queue_of_a_disk_has_an_IO_thread_as_far_as_there_are_vcpus(int queues, int cpus, int threads)
    {
        VirtioBlkOptions options = DiskFront.Options("disk0", new DiskSpec { Path = "/x.img", Queues = queues }, cpus);
        Assert.Equal(queues, options.QueueCount);
        Assert.Equal(threads, options.IoThreads);
        options.Validate();
    }
}
