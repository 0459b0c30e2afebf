using System.Globalization;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// The qcow2 engine on files that crash and fail. The number of trials over all images is set by <c>VMM_DISK_SEQUENCES</c>,
/// <c>VMM_DISK_CUTS</c> and <c>VMM_DISK_FAULTS</c>; <c>VMM_DISK_SEED</c> is the first seed. A failure names its seed.
/// </summary>
public sealed class Qcow2TrialTests(ImageStore images) : IClassFixture<ImageStore>
{
    public static TheoryData<string> Images => [.. ImageSpec.All.Select(s => s.Name)];

    /// <summary>Random requests from 1, 2 and 4 queues, closed and opened again: nothing fails, leaks, or differs from the model.</summary>
    [Theory]
    [MemberData(nameof(Images))]
    public void Random_requests_leave_a_sound_image_that_holds_what_was_written(string image) => Repeat(
        image, "VMM_DISK_SEQUENCES", 17 * 3, (trial, _) => trial.RunClean());

    /// <summary>After a cut at any step: leaks at most, and every byte that was made durable.</summary>
    [Theory]
    [MemberData(nameof(Images))]
    public void A_power_cut_loses_nothing_that_was_made_durable(string image) => Repeat(
        image, "VMM_DISK_CUTS", 17 * 3, (trial, random) => trial.RunCut(random.Next(1, 400), outcomes: 2));

    /// <summary>One step of the file fails, or the file system is full for a while: the image is sound, and nobody heard a lie.</summary>
    [Theory]
    [MemberData(nameof(Images))]
    public void A_step_that_fails_leaves_a_sound_image(string image) => Repeat(
        image, "VMM_DISK_FAULTS", 17 * 3, (trial, random) => random.Next(4) switch
        {
            0 => trial.RunFault(FileSteps.NeedSpace, random.Next(1, 200), DiskStatus.NoSpace, 1 << random.Next(10)),
            1 => trial.RunFault(FileSteps.Changes, random.Next(1, 300), DiskStatus.NoSpace, 1),
            2 => trial.RunFault(FileSteps.Changes | FileSteps.Read, random.Next(1, 400), DiskStatus.IoError, 1 << random.Next(6)),
            _ => trial.RunFault(FileSteps.Flush, random.Next(1, 60), DiskStatus.IoError, 1 << random.Next(4)),
        });

    private void Repeat(string name, string variable, int count, Func<Trial, Random, string?> run)
    {
        TestImage image = images[name];
        int trials = Math.Max(1, (Number(variable) ?? count) / ImageSpec.All.Count), first = Number("VMM_DISK_SEED") ?? 0;
        for (int seed = first; seed < first + trials; seed++)
        {
            int queues = 1 << (seed % 3);
            Trial trial = new(image, Open, seed, queues, requests: 160 / queues);
            string? wrong = run(trial, new Random(seed));
            Assert.True(wrong is null, $"{name}, seed {seed}, {queues} queues: {wrong}");
        }
    }

    private static IDiskBackend Open(TestImage image, IReadOnlyList<IImageFile> files) => Qcow2Disk.Open(
        [.. files.Select((file, layer) => new ImageLayer(file, image.IsQcow2(layer) ? ImageFormat.Qcow2 : ImageFormat.Raw))]);

    private static int? Number(string variable) => Environment.GetEnvironmentVariable(variable) is { } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : null;
}
