using System.Globalization;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// Disks of images are copied while guests write them, on files that crash and fail. Numbers and seed as of <see cref="Qcow2TrialTests"/>.
/// </summary>
public sealed class CopyTrialTests(ImageStore images) : IClassFixture<ImageStore>
{
    public static TheoryData<string, string> Copies
    {
        get
        {
            TheoryData<string, string> all = [];
            foreach (ImageSpec image in ImageSpec.All)
            {
                foreach (CopyKind kind in Enum.GetValues<CopyKind>().Where(kind => kind != CopyKind.Top || image.Depth > 1))
                {
                    all.Add(image.Name, kind.ToString());
                }
            }

            return all;
        }
    }

    [Theory]
    [MemberData(nameof(Copies))]
    public void A_disk_is_copied_while_guests_write(string image, string kind) => Repeat(
        image, kind, "VMM_DISK_SEQUENCES", 3, (trial, _) => trial.RunClean());

    [Theory]
    [MemberData(nameof(Copies))]
    public void A_copy_that_is_given_up_leaves_the_disk(string image, string kind) => Repeat(
        image, kind, "VMM_DISK_SEQUENCES", 1, (trial, _) => trial.RunCancel());

    /// <summary>The target is full, or its host fails: the guest hears nothing of it.</summary>
    [Theory]
    [MemberData(nameof(Copies))]
    public void A_target_that_fails_fails_no_request(string image, string kind) => Repeat(
        image, kind, "VMM_DISK_FAULTS", 3, (trial, random) => random.Next(3) switch
        {
            0 => trial.RunTargetFault(FileSteps.NeedSpace, random.Next(1, 60), DiskStatus.NoSpace, 1 << random.Next(10)),
            1 => trial.RunTargetFault(FileSteps.Changes, random.Next(1, 80), DiskStatus.IoError, 1 << random.Next(6)),
            _ => trial.RunTargetFault(FileSteps.Flush, random.Next(1, 6), DiskStatus.IoError, 1 << random.Next(4)),
        });

    [Theory]
    [MemberData(nameof(Copies))]
    public void A_source_that_fails_leaves_two_disks_that_are_the_same_or_no_copy(string image, string kind) => Repeat(
        image, kind, "VMM_DISK_FAULTS", 2, (trial, random) => random.Next(2) == 0
            ? trial.RunSourceFault(FileSteps.NeedSpace, random.Next(1, 200), DiskStatus.NoSpace, 1 << random.Next(8))
            : trial.RunSourceFault(FileSteps.Write | FileSteps.Read, random.Next(1, 300), DiskStatus.IoError, 1 << random.Next(6)));

    /// <summary>The worker or the host dies amid it, before and while it is decided which of the two is the disk.</summary>
    [Theory]
    [MemberData(nameof(Copies))]
    public void A_power_cut_amid_a_copy_loses_nothing(string image, string kind) => Repeat(
        image, kind, "VMM_DISK_CUTS", 2, (trial, random) => trial.RunCut(random.Next(1, 200), isSealed: random.Next(2) == 0));

    private void Repeat(string name, string kind, string variable, int usual, Func<CopyTrial, Random, string?> run)
    {
        string? count = Environment.GetEnvironmentVariable(variable), start = Environment.GetEnvironmentVariable("VMM_DISK_SEED");
        int trials = count is null ? usual : Math.Max(1, int.Parse(count, CultureInfo.InvariantCulture) / Copies.Count);
        int first = start is null ? 0 : int.Parse(start, CultureInfo.InvariantCulture);
        for (int seed = first; seed < first + trials; seed++)
        {
            using CopyTrial trial = new(images[name], Enum.Parse<CopyKind>(kind), seed);
            string? wrong = run(trial, new Random(seed));
            Assert.True(wrong is null, $"{name} to {kind}, seed {seed}: {wrong}");
        }
    }
}
