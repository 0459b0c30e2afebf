using System.Globalization;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// Images of a chain are committed into one below them, whose file crashes or fails, while guests write the top or not. The disk is the
/// same at every moment, and so after every crash; nothing of a guest fails. Numbers and seed as of <see cref="Qcow2TrialTests"/>.
/// </summary>
public sealed class CommitTrialTests(ImageStore images) : IClassFixture<ImageStore>
{
    private const int EachImage = 3;

    public static TheoryData<string> Chains => [.. ImageSpec.All.Where(s => s.Depth > 1).Select(s => s.Name)];

    [Theory]
    [MemberData(nameof(Chains))]
    public void A_commit_does_not_change_the_disk(string image) => Repeat(image, "VMM_DISK_SEQUENCES", (_, _) => { });

    [Theory]
    [MemberData(nameof(Chains))]
    public void A_power_cut_amid_a_commit_does_not_change_the_disk(string image) => Repeat(
        image, "VMM_DISK_CUTS", (file, random) => file.Plan(f => f.CutAt(random.Next(1, 150))), cuts: true);

    [Theory]
    [MemberData(nameof(Chains))]
    public void A_base_that_fails_does_not_change_the_disk(string image) => Repeat(
        image, "VMM_DISK_FAULTS", (file, random) => file.Plan(f => _ = random.Next(3) switch
        {
            0 => Fail(f, FileSteps.NeedSpace, random.Next(1, 100), DiskStatus.NoSpace, 1 << random.Next(8)),
            1 => Fail(f, FileSteps.Changes, random.Next(1, 150), DiskStatus.IoError, 1 << random.Next(6)),
            _ => Fail(f, FileSteps.Flush, random.Next(1, 20), DiskStatus.IoError, 1),
        }));

    private static bool Fail(FileFaults faults, FileSteps steps, int number, DiskStatus status, int count)
    {
        faults.FailAt(steps, number, status, count);
        return true;
    }

    private void Repeat(string name, string variable, Action<CrashFile, Random> plan, bool cuts = false)
    {
        TestImage image = images[name];
        string? count = Environment.GetEnvironmentVariable(variable), start = Environment.GetEnvironmentVariable("VMM_DISK_SEED");
        int trials = count is null ? EachImage : Math.Max(1, int.Parse(count, CultureInfo.InvariantCulture) / Chains.Count);
        int first = start is null ? 0 : int.Parse(start, CultureInfo.InvariantCulture);
        for (int seed = first; seed < first + trials; seed++)
        {
            Random random = new(seed);
            int from = image.Spec.Depth > 2 ? random.Next(2) : 0, place = random.Next(from + 1, image.Spec.Depth);
            string? wrong = new CommitTrial(image, from, place, seed) { Cuts = cuts }.Run(file => plan(file, random), random);
            Assert.True(wrong is null, $"{name}, seed {seed}, images from {from} into {place}: {wrong}");
        }
    }
}

/// <summary>One commit. With images from the second one on a guest writes the top meanwhile.</summary>
internal sealed class CommitTrial(TestImage image, int from, int place, int seed)
{
    private readonly DiskModel _model = new(image.Content);
    private SparseBytes _top = image.Layers[0];

    /// <summary>The power goes, and what a guest reads through the target fails as well.</summary>
    public bool Cuts { get; init; }

    public string? Run(Action<CrashFile> plan, Random random)
    {
        SparseBytes target = image.Layers[place];
        if (!image.IsQcow2(place) && target.Length < image.Spec.DiskSize)
        {
            target = target.Copy();
            target.Length = image.Spec.DiskSize; // as a commit begins
        }
        else if (image.IsQcow2(place) && image.Spec.ShortBase && place == image.Spec.Depth - 1)
        {
            target = Grown(target);
        }

        using CrashFile file = new(target, seed) { Delays = seed % 2 > 0 };
        plan(file);
        string? wrong = Commit(file, out bool over) ?? Seen(file.Content(), place)
            ?? (over && file.Struck == 0 ? Check(file.Content(), leaks: 0) : null);
        for (int outcome = 0; wrong is null && outcome < 3; outcome++)
        {
            target = file.CutPower(random);
            wrong = Seen(target, place) ?? (over ? Seen(target, from) : null) ?? Check(target);
        }

        using CrashFile again = new(target, seed + 1);
        wrong ??= Commit(again, out over) ?? (over ? null : "a commit on a sound host fails") ?? Seen(again.Content(), from);
        return wrong ?? Check(again.Content());
    }

    // Through the chain as it is now. The commit may fail; the disk may not.
    private string? Commit(CrashFile target, out bool over)
    {
        using CrashFile top = new(_top, seed + 2);
        bool done = false;
        string? wrong;
        using (Qcow2Disk disk = Open(top, target, without: place))
        {
            Workload load = new(seed, Queues: 2, Requests: 80) { Places = image.Spec.Places, MayFail = Cuts };
            Task<string?> guest = Task.Run(() => from == 0 ? null : load.Run(disk, _model, out _));
            try
            {
                ImageCommit.Run(disk, from, place, ToolProgress.None);
                done = true;
            }
            catch (BlockException)
            {
                // the target failed
            }

            wrong = guest.Result;
        }

        (over, _top) = (done, top.Content());
        return wrong;
    }

    // The disk through the images from the top to before "without", and those from the target on.
    private string? Seen(SparseBytes target, int without)
    {
        using CrashFile file = new(target, seed), top = new(_top, seed);
        if (without == 0 && !image.IsQcow2(place))
        {
            return DiskReader.Read(file, image.Spec.Places, _model.WrongToRead);
        }

        using Qcow2Disk disk = Open(top, file, without);
        return DiskReader.Read(disk, image.Spec.Places, _model.WrongToRead);
    }

    private Qcow2Disk Open(CrashFile top, CrashFile target, int without)
    {
        IReadOnlyList<IImageFile> files = image.Open(top);
        return Qcow2Disk.Open(
        [
            .. Enumerable.Range(0, image.Spec.Depth).Where(i => i < without || i >= place).Select(i => new ImageLayer(
                i == place ? target : files[i], image.IsQcow2(i) ? ImageFormat.Qcow2 : ImageFormat.Raw)),
        ]);
    }

    private string? Check(SparseBytes target, int leaks = int.MaxValue)
    {
        if (!image.IsQcow2(place))
        {
            return null;
        }

        string path = image.SaveTop(target);
        try
        {
            QemuJudge.Found found = QemuJudge.Check(path);
            return found.Errors > 0 || found.Leaks > leaks ? $"qemu-img check: {found.Text}" : null;
        }
        finally
        {
            File.Delete(path);
        }
    }

    private SparseBytes Grown(SparseBytes target)
    {
        string path = image.SaveTop(target);
        try
        {
            ImageResize.Run(path, "qcow2", image.Spec.DiskSize, shrink: false);
            return SparseBytes.Load(path);
        }
        finally
        {
            File.Delete(path);
        }
    }
}
