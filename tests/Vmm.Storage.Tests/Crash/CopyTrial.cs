using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Crash;

/// <summary>What a trial copies a disk to.</summary>
internal enum CopyKind
{
    /// <summary>A raw disk.</summary>
    Raw,

    /// <summary>An image of its own.</summary>
    Image,

    /// <summary>An image over the same images, which gets what the top has.</summary>
    Top,
}

/// <summary>
/// One copy of a chain while guests write it, on files that crash and fail; each method answers what is wrong, null when nothing is. The
/// model of the disk and QEMU's tools judge.
/// </summary>
internal sealed class CopyTrial : IDisposable
{
    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(60);

    private readonly TestImage _image;
    private readonly CopyKind _kind;
    private readonly DiskModel _model;
    private readonly CrashFile _source, _target;
    private readonly DiskMirror _mirror;
    private readonly Random _random;
    private readonly int _queues;
    private int _rounds;

    public CopyTrial(TestImage image, CopyKind kind, int seed)
    {
        (_image, _kind, _model, _random) = (image, kind, new DiskModel(image.Content), new Random(seed));
        _queues = 1 << (seed % 3);
        _rounds = seed * 1000;
        _source = new CrashFile(image.Layers[0], seed) { Delays = seed % 2 > 0 };
        _target = new CrashFile(seed: seed + 7) { Delays = seed % 2 > 0, Path = "target" };
        if (kind != CopyKind.Raw)
        {
            Qcow2Creator.Fill(_target, Options());
        }

        _mirror = new DiskMirror(Chain(_source), OpenTarget(), topOnly: kind == CopyKind.Top);
    }

    /// <summary>Steps that failed because they were told to.</summary>
    public int Struck => _source.Struck + _target.Struck;

    /// <summary>Nothing fails: the target is the disk then, and is worked with.</summary>
    public string? RunClean()
    {
        _mirror.Start();
        return WorkUntil(() => _mirror.Report.State == MirrorState.Mirrored, mayFail: false) ?? Work(_mirror, mayFail: false) ?? GoOver();
    }

    /// <summary>Steps of the target's file fail: no request does, and the source is the disk unless the target has everything.</summary>
    public string? RunTargetFault(FileSteps steps, int step, DiskStatus status, int count)
    {
        _target.Plan(f => f.FailAt(steps, step, status, count));
        _mirror.Start();
        string? wrong = WorkUntil(() => _mirror.Report is { Problem: not null } or { State: MirrorState.Mirrored }, mayFail: false)
            ?? Work(_mirror, mayFail: false);
        _target.Plan(f => f.Clear());
        return wrong ?? (_mirror.Report.Problem is null ? GoOver() : GoBack());
    }

    /// <summary>Steps of the source's file fail: a guest hears of it, and the target has the same or is of no use.</summary>
    public string? RunSourceFault(FileSteps steps, int step, DiskStatus status, int count)
    {
        _source.Plan(f => f.FailAt(steps, step, status, count));
        _mirror.Start();
        string? wrong = WorkUntil(() => _mirror.Report is { Problem: not null } or { State: MirrorState.Mirrored }, mayFail: true)
            ?? Work(_mirror, mayFail: true);
        _source.Plan(f => f.Clear());
        if (_mirror.Report.Problem is null)
        {
            return wrong ?? GoOver();
        }

        _mirror.End().Dispose();
        return wrong ?? CheckImage(_source, mayLeak: true, isSource: true);
    }

    /// <summary>Given up amid it: the source is the disk, and the target's image is sound.</summary>
    public string? RunCancel()
    {
        _mirror.Start(bytesPerSecond: 8 << 20);
        string? wrong = Work(_mirror, mayFail: false);
        return wrong ?? GoBack();
    }

    /// <summary>
    /// The power goes amid a step of the source's file. Sealed, either may be the disk: both have what was promised. Before that the source
    /// has.
    /// </summary>
    public string? RunCut(int step, bool isSealed)
    {
        _mirror.Start();
        if (isSealed)
        {
            if (WorkUntil(() => _mirror.Report.State == MirrorState.Mirrored, mayFail: false) is { } early)
            {
                return early;
            }

            _mirror.Seal();
        }

        _source.Plan(f => f.CutAt(step));
        IDiskBackend? source = null;
        using ManualResetEventSlim over = new();
        Task ending = Task.Factory.StartNew(
            () =>
            {
                SpinWait.SpinUntil(() => _source.IsCut || over.IsSet, s_soon);
                source = _mirror.End(); // what waits for a decision ends
            },
            TaskCreationOptions.LongRunning);
        string? wrong = WorkUntil(() => _source.IsCut || --step < -40, mayFail: true);
        over.Set();
        ending.Wait();
        bool isCut = _source.IsCut; // otherwise it was over before
        source?.Dispose();
        _mirror.Dispose();
        for (int outcome = 0; wrong is null && outcome < 2; outcome++)
        {
            wrong = Left(_source.CutPower(_random), Chain, isSource: true);
            wrong ??= isSealed && isCut ? Left(_target.CutPower(_random), OpenTarget, isSource: false) : null;
        }

        return wrong;
    }

    public void Dispose() => _mirror.Dispose();

    private string? WorkUntil(Func<bool> done, bool mayFail)
    {
        for (long begin = Environment.TickCount64; !done();)
        {
            if (Work(_mirror, mayFail) is { } wrong)
            {
                return wrong;
            }

            if (Environment.TickCount64 - begin > s_soon.TotalMilliseconds)
            {
                return $"hangs: {_mirror.Report}";
            }
        }

        return null;
    }

    private string? Work(IDiskBackend disk, bool mayFail)
    {
        Workload load = new(_rounds++, _queues, 60 / _queues) { Places = _image.Spec.Places, MayFail = mayFail };
        string? wrong = load.Run(disk, _model, out bool closed);
        if (!closed)
        {
            _model.Lost();
        }

        return wrong;
    }

    private string? GoOver()
    {
        _mirror.Seal();
        using IDiskBackend target = _mirror.Finish();
        _mirror.Dispose(); // the source
        string? wrong = Say("the source", CheckImage(_source, mayLeak: _source.Struck > 0, isSource: true))
            ?? DiskReader.Read(target, _image.Spec.Places, _model.WrongToRead) ?? Work(target, mayFail: false);
        SparseBytes content = _image.Content.Copy();
        wrong ??= DiskReader.Read(target, _image.Spec.Places, (data, at) =>
        {
            content.Write(data, at);
            return _model.WrongToRead(data, at);
        });
        target.Dispose();
        return Say("the target", wrong ?? CheckImage(_target, mayLeak: _target.Struck > 0, isSource: false) ?? Compare(content));
    }

    private string? GoBack()
    {
        using IDiskBackend source = _mirror.End();
        _mirror.Dispose(); // the target
        string? wrong = DiskReader.Read(source, _image.Spec.Places, _model.WrongToRead) ?? Work(source, mayFail: false);
        source.Dispose();
        wrong ??= CheckImage(_source, mayLeak: false, isSource: true);
        return wrong ?? Say("the target", _target.LostFlush ? null : CheckImage(_target, mayLeak: true, isSource: false));
    }

    private string? Left(SparseBytes after, Func<CrashFile, IDiskBackend> open, bool isSource)
    {
        using CrashFile file = new(after, 1);
        try
        {
            using IDiskBackend disk = open(file);
            return Say(isSource ? "left in the source" : "left in the target",
                CheckImage(file, mayLeak: true, isSource) ?? DiskReader.Read(disk, _image.Spec.Places, _model.WrongToBeLeft));
        }
        catch (BlockException error)
        {
            return $"does not open: {error.Message}";
        }
    }

    private string? CheckImage(CrashFile file, bool mayLeak, bool isSource)
    {
        if (!isSource && _kind == CopyKind.Raw)
        {
            return null;
        }

        string path = _image.SaveTop(file.Content());
        QemuJudge.Found found = QemuJudge.Check(path);
        File.Delete(path);
        return found.Errors > 0 || (found.Leaks > 0 && !mayLeak) ? $"qemu-img check: {found.Text}" : null;
    }

    // The whole disk, by QEMU's eyes.
    private string? Compare(SparseBytes content)
    {
        SparseBytes seen = _target.Content();
        seen.Length = _kind == CopyKind.Raw ? _image.Spec.DiskSize : seen.Length;
        string target = _image.SaveTop(seen), raw = _image.SaveTop(content);
        (int code, string text) = Qcow2.QemuImg.Try(
            "compare", "-f", _kind == CopyKind.Raw ? "raw" : "qcow2", "-F", "raw", target, raw);
        File.Delete(target);
        File.Delete(raw);
        return code == 0 ? null : text;
    }

    private static string? Say(string what, string? wrong) => wrong is null ? null : $"{what}: {wrong}";

    private IDiskBackend OpenTarget() => OpenTarget(_target);

    private IDiskBackend OpenTarget(CrashFile file) => _kind switch
    {
        CopyKind.Raw => new ToyDisk(file, _image.Spec.DiskSize),
        CopyKind.Image => Qcow2Disk.Open([new ImageLayer(file, ImageFormat.Qcow2)]),
        _ => Chain(file),
    };

    private IDiskBackend Chain(CrashFile top) => Qcow2Disk.Open(
        [.. _image.Open(top).Select((file, i) => new ImageLayer(file, _image.IsQcow2(i) ? ImageFormat.Qcow2 : ImageFormat.Raw))]);

    private Qcow2CreateOptions Options()
    {
        Qcow2CreateOptions plain = new() { DiskSize = _image.Spec.DiskSize };
        return _kind == CopyKind.Image ? plain : plain with
        {
            ClusterBits = int.Log2(_image.Spec.ClusterSize),
            ExtendedL2 = _image.Spec.Options.Contains("extended_l2=on", StringComparison.Ordinal),
            BackingFile = _image.NameOf(1),
            BackingFormat = _image.IsQcow2(1) ? "qcow2" : "raw",
        };
    }
}
