using System.Globalization;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// A chain is committed into an image of its own while guests write and read it, on a base that crashes or fails: nothing of a guest fails
/// but what a base without power cannot answer, and the chain, or the base when it is the disk, holds what the model says. Numbers and seed
/// as of <see cref="Qcow2TrialTests"/>.
/// </summary>
public sealed class LiveCommitTrialTests(ImageStore images) : IClassFixture<ImageStore>
{
    private const int EachImage = 3;

    /// <summary>A raw base is no image with tables: <c>BlkCommitTests</c> has those.</summary>
    public static TheoryData<string> Chains => [.. ImageSpec.All.Where(s => s.Depth > (s.RawBase ? 2 : 1)).Select(s => s.Name)];

    [Theory]
    [MemberData(nameof(Chains))]
    public void A_chain_goes_on_in_its_base_or_in_itself_when_that_is_given_up(string image) => Repeat(
        image, "VMM_DISK_SEQUENCES", (_, _) => { });

    [Theory]
    [MemberData(nameof(Chains))]
    public void A_base_that_loses_power_leaves_the_chain(string image) => Repeat(
        image, "VMM_DISK_CUTS", (file, random) => file.Plan(f => f.CutAt(random.Next(1, 300))), cuts: true);

    /// <summary>One step of the base fails, or its file system is full for a while: the commit may fail, and no request does.</summary>
    [Theory]
    [MemberData(nameof(Chains))]
    public void A_base_that_fails_leaves_the_chain(string image) => Repeat(
        image, "VMM_DISK_FAULTS", (file, random) =>
        {
            (FileSteps steps, int step, DiskStatus status, int count) = random.Next(3) switch
            {
                0 => (FileSteps.NeedSpace, random.Next(1, 200), DiskStatus.NoSpace, 1 << random.Next(8)),
                1 => (FileSteps.Changes, random.Next(1, 300), DiskStatus.IoError, 1 << random.Next(6)),
                _ => (FileSteps.Flush, random.Next(1, 40), DiskStatus.IoError, 1),
            };
            file.Plan(f => f.FailAt(steps, step, status, count));
        });

    private void Repeat(string name, string variable, Action<CrashFile, Random> plan, bool cuts = false)
    {
        TestImage image = images[name];
        string? count = Environment.GetEnvironmentVariable(variable), start = Environment.GetEnvironmentVariable("VMM_DISK_SEED");
        int trials = count is null ? EachImage : Math.Max(1, int.Parse(count, CultureInfo.InvariantCulture) / Chains.Count);
        int first = start is null ? 0 : int.Parse(start, CultureInfo.InvariantCulture);
        for (int seed = first; seed < first + trials; seed++)
        {
            Random random = new(seed);
            int place = random.Next(1, image.Spec.RawBase ? image.Spec.Depth - 1 : image.Spec.Depth);
            LiveCommitTrial trial = new(image, place, seed) { Cuts = cuts, GivesUp = seed % 3 == 2 };
            string? wrong = trial.Run(file => plan(file, random), random);
            Assert.True(wrong is null, $"{name}, seed {seed}, into image {place}: {wrong}");
        }
    }
}

/// <summary>One of them.</summary>
internal sealed class LiveCommitTrial(TestImage image, int place, int seed)
{
    private readonly DiskModel _model = new(image.Content);
    private readonly int _queues = 1 << (seed % 3);
    private string? _problem;
    private int _loads;

    /// <summary>The base loses its power, and what a guest reads through it fails.</summary>
    public bool Cuts { get; init; }

    /// <summary>The commit is given up when everything is there.</summary>
    public bool GivesUp { get; init; }

    public string? Run(Action<CrashFile> plan, Random random)
    {
        using CrashFile top = new(image.Layers[0], seed + 1), file = new(image.Layers[place], seed) { Delays = seed % 2 > 0 };
        plan(file);
        string? wrong = Commit(top, file, out int first);
        if (wrong is not null)
        {
            return wrong;
        }

        bool isSound = file.Struck == 0 && !file.IsCut;
        wrong = file.IsCut ? null
            : isSound && !GivesUp && first == 0 ? $"a sound base got nothing: {_problem}"
            : Seen(top.Content(), file.Content(), first, _model.WrongToRead) ?? Check(file.Content(), isSound ? 0 : int.MaxValue);
        for (int outcome = 0; wrong is null && outcome < 3; outcome++)
        {
            SparseBytes after = file.CutPower(random); // of the base alone: what is in the chain's top stays
            wrong = Seen(top.Content(), after, first, first == 0 && !file.IsCut ? _model.WrongToRead : _model.WrongToBeLeft)
                ?? Check(after, int.MaxValue);
        }

        return wrong;
    }

    // The first image of the disk afterwards: 0, the chain goes on, or the base.
    private string? Commit(CrashFile top, CrashFile file, out int first)
    {
        first = 0;
        Qcow2Disk disk = Open(top, file, 0);
        DiskCommitter committer = new(disk, place, file);
        Qcow2Disk source = committer.Over(disk.Detach());
        DiskMirror mirror;
        try
        {
            mirror = committer.Begin();
        }
        catch (BlockException)
        {
            using (source) // the base failed before anything began
            {
                return file.IsCut ? null : Load(source);
            }
        }

        mirror.Start();
        string? wrong = Load(mirror);
        if (!SpinWait.SpinUntil(() => mirror.Report is { State: not MirrorState.Copying } or { Problem: not null }, 60_000))
        {
            return "the copier hangs";
        }

        wrong ??= Load(mirror);
        if (wrong is null && !GivesUp && mirror.Report is { State: MirrorState.Mirrored, Problem: null })
        {
            mirror.Seal();
            _ = mirror.Finish();
            committer.Commit();
            mirror.Dispose();
            first = place;
            if (!Cuts)
            {
                file.Plan(f => f.Clear()); // from here on it is the disk, and what fails is the guest's
            }

            using IDetachableDisk target = committer.Target;
            return Load(target);
        }

        _problem = mirror.Report.Problem;
        _ = mirror.End();
        mirror.Dispose();
        if (file.IsCut)
        {
            committer.Source.Dispose(); // there is nothing to open
            return wrong;
        }

        file.Plan(f => f.Clear());
        using Qcow2Disk again = committer.GoBack(committer.Source.Detach());
        return wrong ?? Load(again);
    }

    private string? Load(IDiskBackend disk)
    {
        Workload load = new(seed + (1000 * _loads++), _queues, 80 / _queues) { Places = image.Spec.Places, MayFail = Cuts };
        return load.Run(disk, _model, out _);
    }

    private string? Seen(SparseBytes top, SparseBytes target, int first, LookAt look)
    {
        using CrashFile ours = new(top, seed), file = new(target, seed);
        using Qcow2Disk disk = Open(ours, file, first);
        return DiskReader.Read(disk, image.Spec.Places, look);
    }

    private Qcow2Disk Open(CrashFile top, CrashFile target, int first)
    {
        IReadOnlyList<IImageFile> files = image.Open(top);
        return Qcow2Disk.Open(
        [
            .. Enumerable.Range(first, image.Spec.Depth - first).Select(i => new ImageLayer(
                i == place ? target : files[i], image.IsQcow2(i) ? ImageFormat.Qcow2 : ImageFormat.Raw)),
        ]);
    }

    private string? Check(SparseBytes target, int leaks)
    {
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
}
