using System.Globalization;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// Images that grow while they are worked with, on files that crash and fail: <c>VMM_DISK_GROWTHS</c> trials of each kind over all images,
/// from <c>VMM_DISK_SEED</c> on.
/// </summary>
public sealed class Qcow2GrowthTests(ImageStore images) : IClassFixture<ImageStore>
{
    public static TheoryData<string> Images => [.. ImageSpec.All.Select(s => s.Name)];

    [Theory]
    [MemberData(nameof(Images))]
    public void What_is_new_is_zeros_and_the_image_stays_sound(string image) => Repeat(image, (trial, _) =>
        trial.RunClean() ?? (trial.Refused == 0 ? null : "was refused"));

    [Theory]
    [MemberData(nameof(Images))]
    public void A_power_cut_leaves_the_old_size_or_the_new_one(string image) => Repeat(
        image, (trial, random) => trial.RunCut(random.Next(1, 120), outcomes: 2));

    [Theory]
    [MemberData(nameof(Images))]
    public void A_step_that_fails_leaves_the_old_size_or_the_new_one(string image) => Repeat(image, (trial, random) => random.Next(3) switch
    {
        0 => trial.RunFault(FileSteps.NeedSpace, random.Next(1, 80), DiskStatus.NoSpace, 1 << random.Next(8)),
        1 => trial.RunFault(FileSteps.Changes | FileSteps.Read, random.Next(1, 120), DiskStatus.IoError, 1 << random.Next(6)),
        _ => trial.RunFault(FileSteps.Flush, random.Next(1, 30), DiskStatus.IoError, 1),
    });

    private void Repeat(string name, Func<Trial, Random, string?> run)
    {
        TestImage image = images[name];
        int count = Number("VMM_DISK_GROWTHS") ?? (2 * ImageSpec.All.Count), first = Number("VMM_DISK_SEED") ?? 0;
        for (int seed = first; seed < first + Math.Max(1, count / ImageSpec.All.Count); seed++)
        {
            Random random = new(seed);
            int queues = 1 << (seed % 3);
            ulong size = image.Spec.DiskSize, unit = (ulong)image.Spec.ClusterSize;
            ulong more = (seed % 3) switch
            {
                0 => size * (ulong)random.Next(1, 4), // a longer L1 table, somewhere else when clusters are small
                1 => unit * unit / 8 * (ulong)random.Next(1, 3), // some entries more
                _ => (ulong)random.Next(1, 20) * 512,
            };
            Trial trial = new(image, Open, seed, queues, requests: 80 / queues)
            {
                GrowsTo = (size + Math.Min(more, 4ul << 30)) / 512 * 512,
            };
            string? wrong = run(trial, random);
            Assert.True(wrong is null, $"{name}, seed {seed}, {queues} queues, from {size} to {trial.GrowsTo} bytes: {wrong}");
        }
    }

    private static IDiskBackend Open(TestImage image, IReadOnlyList<IImageFile> files) => Qcow2Disk.Open(
        [.. files.Select((file, layer) => new ImageLayer(file, image.IsQcow2(layer) ? ImageFormat.Qcow2 : ImageFormat.Raw))]);

    private static int? Number(string variable) => Environment.GetEnvironmentVariable(variable) is { } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : null;
}
