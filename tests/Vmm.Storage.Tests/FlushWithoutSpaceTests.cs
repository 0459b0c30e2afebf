using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Crash;

namespace Vmm.Storage.Tests;

/// <summary>
/// A flush writes changed tables, which may need space that the host has not. Nothing is lost then: whoever may wait for space keeps it,
/// and issues it again.
/// </summary>
public sealed class FlushWithoutSpaceTests(ImageStore images) : IClassFixture<ImageStore>
{
    [Theory]
    [InlineData("fresh, 4 KiB")]
    [InlineData("over qcow2")]
    public void A_flush_is_kept_until_there_is_space_for_tables(string name)
    {
        TestImage image = images[name];
        using CrashFile file = new(image.Layers[0]);
        byte[] data = Enumerable.Repeat((byte)7, 4096).ToArray(), read = new byte[4096];
        WithRouter(image, file, (driver, router) =>
        {
            Assert.Equal(DiskStatus.Ok, driver.Write(1 << 20, data));
            file.Plan(faults => faults.FailAt(FileSteps.NeedSpace, 1, DiskStatus.NoSpace, count: int.MaxValue));
            driver[1].Prepare(BlockKind.Flush);
            driver.Node.Submit(driver[1]);
            driver.Loop.Submit();
            Await(driver, () => router.Kept == 1 || driver[1].State == BlockState.Done);
            Assert.Equal(1, router.Kept);
            file.Plan(faults => faults.Clear());
            router.Resume();
            Await(driver, () => driver[1].State == BlockState.Done);
            Assert.Equal(DiskStatus.Ok, driver.Status(1));
            SparseBytes left = file.CutPower(new Random(1));
            using CrashFile after = new(left);
            using IDiskBackend again = Open(image, after);
            using DiskDriver reader = new(again);
            Assert.Equal(DiskStatus.Ok, reader.Read(1 << 20, read));
            Assert.Equal(data, read);
        });
    }

    /// <summary>Whichever of its writes found no space: when there is space again the next flush makes all of it durable.</summary>
    [Fact]
    public void A_flush_that_found_no_space_at_any_step_is_whole_the_next_time()
    {
        TestImage image = images["fresh, 4 KiB"];
        byte[] data = Enumerable.Repeat((byte)7, 4096).ToArray(), read = new byte[4096];
        for (int step = 1; step <= 8; step++)
        {
            using CrashFile file = new(image.Layers[0]);
            using IDiskBackend disk = Open(image, file);
            using DiskDriver driver = new(disk);
            Assert.Equal(DiskStatus.Ok, driver.Write(1 << 20, data));
            file.Plan(faults => faults.FailAt(FileSteps.NeedSpace, step, DiskStatus.NoSpace));
            DiskStatus first = driver.Flush();
            Assert.Contains(first, (DiskStatus[])[DiskStatus.Ok, DiskStatus.NoSpace]);
            file.Plan(faults => faults.Clear());
            Assert.Equal(DiskStatus.Ok, driver.Flush());
            using CrashFile after = new(file.CutPower(new Random(step)));
            using IDiskBackend again = Open(image, after);
            using DiskDriver reader = new(again);
            Assert.Equal(DiskStatus.Ok, reader.Read(1 << 20, read));
            Assert.True(read.AsSpan().SequenceEqual(data), $"step {step}: {first}");
        }
    }

    /// <summary>A flush of the file that failed is another matter: what it was for may be gone.</summary>
    [Fact]
    public void A_flush_that_may_have_lost_something_is_not_kept()
    {
        TestImage image = images["fresh, 4 KiB"];
        using CrashFile file = new(image.Layers[0]);
        WithRouter(image, file, (driver, _) =>
        {
            Assert.Equal(DiskStatus.Ok, driver.Write(1 << 20, (byte[])[1, .. new byte[511]]));
            file.Plan(faults => faults.FailAt(FileSteps.Flush, 1, DiskStatus.NoSpace));
            Assert.Equal(DiskStatus.NoSpace, driver.Flush());
            Assert.NotEqual(DiskStatus.Ok, driver.Flush());
        });
    }

    private static void WithRouter(TestImage image, CrashFile top, Action<DiskDriver, RequestRouter> test)
    {
        using IDiskBackend disk = Open(image, top);
        IBlockNode? node = null;
        using DiskDriver driver = new(
            loop => new RequestRouter(loop, node = disk.CreateNode(loop, 8)) { Faults = new Waits() });
        try
        {
            test(driver, (RequestRouter)driver.Node);
        }
        finally
        {
            node!.Dispose();
        }
    }

    private static void Await(DiskDriver driver, Func<bool> isSo) => driver.Loop.DeliverUntil(isSo);

    private static Qcow2Disk Open(TestImage image, CrashFile top) => Qcow2Disk.Open(
        [.. image.Open(top).Select((each, layer) => new ImageLayer(each, image.IsQcow2(layer) ? ImageFormat.Qcow2 : ImageFormat.Raw))]);

    private sealed class Waits : IFaultPolicy
    {
        public bool Keeps(BlockRequest request, DiskStatus status) => true;
    }
}
