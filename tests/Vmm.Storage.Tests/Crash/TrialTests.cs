namespace Vmm.Storage.Tests.Crash;

/// <summary>The trials themselves: nothing is found with a disk that is right, and each known fault is found.</summary>
public sealed class TrialTests
{
    private static readonly TestImage Image = TestImage.Raw((2 << 20) + 512);

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void A_disk_that_is_right_passes(int queues)
    {
        for (int seed = 0; seed < 12; seed++)
        {
            string? wrong = First(seed, queues, ToyFaults.None);
            Assert.True(wrong is null, $"seed {seed}: {wrong}");
        }
    }

    [Theory]
    [InlineData((int)ToyFaults.ForgetsFlushes)]
    [InlineData((int)ToyFaults.ForgetsFua)]
    [InlineData((int)ToyFaults.HidesFailedFlushes)]
    [InlineData((int)ToyFaults.HidesFailedWrites)]
    [InlineData((int)ToyFaults.ForgetsFailedFlushes)]
    [InlineData((int)ToyFaults.Misplaces)]
    [InlineData((int)ToyFaults.ZeroesTooLittle)]
    public void A_disk_that_is_wrong_is_found(int faults)
    {
        int seed = 0;
        while (First(seed, queues: 2, (ToyFaults)faults) is null)
        {
            Assert.True(++seed < 60, $"{(ToyFaults)faults} was not found");
        }
    }

    private static string? First(int seed, int queues, ToyFaults faults)
    {
        Random random = new(seed);
        return Toy(seed).RunClean() ?? Toy(seed + 1).RunCut(random.Next(1, 150), outcomes: 4)
            ?? Toy(seed + 2).RunFault(FileSteps.Changes, random.Next(1, 100), DiskStatus.IoError, count: 1)
            ?? Toy(seed + 3).RunFault(FileSteps.Flush, random.Next(1, 12), DiskStatus.IoError, count: 1)
            ?? Toy(seed + 4).RunFault(FileSteps.NeedSpace, random.Next(1, 60), DiskStatus.NoSpace, count: 1 << random.Next(10));

        Trial Toy(int seed) => new(Image, (_, files) => new ToyDisk(files[0], Image.Content.Length, faults), seed, queues, requests: 80);
    }
}
