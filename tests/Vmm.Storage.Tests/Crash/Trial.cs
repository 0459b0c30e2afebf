namespace Vmm.Storage.Tests.Crash;

/// <summary>Opens a chain of images, the top first, for reading and writing.</summary>
internal delegate IDiskBackend OpenEngine(TestImage image, IReadOnlyList<IImageFile> files);

/// <summary>
/// One run of an engine on an image that can crash or fail; each method answers what is wrong, null when nothing is. QEMU's tools and a
/// model of the disk judge.
/// </summary>
internal sealed class Trial(TestImage image, OpenEngine open, int seed, int queues, int requests)
{
    private readonly Random _random = new(seed);
    private readonly DiskModel _model = new(image.Content);
    private int _rounds;
    private bool _hasGrown;
    private ulong _seenSize;

    /// <summary>The disk grows to so many bytes while it is first worked with; 0: it does not.</summary>
    public ulong GrowsTo { get; init; }

    /// <summary>Growing was refused or failed, and each time it may.</summary>
    public int Refused { get; private set; }

    /// <summary>What is done to the open disk while the requests run; told whether it may fail, answers what is wrong.</summary>
    public Func<IDiskBackend, bool, string?>? Beside { get; init; }

    /// <summary>Clusters that were allocated and are not used, in all that was checked.</summary>
    public int Leaks { get; private set; }

    /// <summary>Steps of the file that were made to fail.</summary>
    public int Struck { get; private set; }

    /// <summary>Steps of the file that changed something.</summary>
    public int Changes { get; private set; }

    /// <summary>Opens, works, closes, some times: nothing may fail, leak, or be other than the model.</summary>
    public string? RunClean()
    {
        using CrashFile file = Wrap(image.Layers[0]);
        for (int round = 0; round < 2; round++)
        {
            string? wrong = Work(file, mayFail: false) ?? Check(file.Content(), mayLeak: false);
            if (wrong is not null)
            {
                return $"round {round}: {wrong}";
            }
        }

        Changes = file.Changes;
        return Compare(file) ?? Say("a power cut after the end", Left(file.CutPower(_random), settle: false));
    }

    /// <summary>The power goes amid a step; some of the ways in which it may go are looked at, and the last one is worked with.</summary>
    public string? RunCut(int step, int outcomes)
    {
        using CrashFile file = Wrap(image.Layers[0]);
        file.Plan(f => f.CutAt(step));
        string? wrong = Work(file, mayFail: true);
        Changes = file.Changes;
        for (int outcome = 1; wrong is null && outcome <= outcomes; outcome++)
        {
            SparseBytes after = file.CutPower(_random);
            wrong = Say($"outcome {outcome} of a cut at step {step}", Left(after, settle: outcome == outcomes));
            if (wrong is null && outcome == outcomes)
            {
                using CrashFile again = Wrap(after);
                wrong = Work(again, mayFail: false) ?? Check(again.Content(), mayLeak: true) ?? Compare(again);
                wrong = Say($"at work after a cut at step {step}", wrong);
            }
        }

        return wrong;
    }

    /// <summary>
    /// Some steps fail, from one on. After the end of the process the host is well again, and the image is worked with once more; then the
    /// power goes.
    /// </summary>
    public string? RunFault(FileSteps steps, int step, DiskStatus status, int count)
    {
        using CrashFile file = Wrap(image.Layers[0]);
        file.Plan(f => f.FailAt(steps, step, status, count));
        string? wrong = Work(file, mayFail: true);
        (Struck, Changes) = (file.Struck, file.Changes);
        file.Plan(f => f.Clear());
        bool heals = status == DiskStatus.NoSpace && (steps & ~FileSteps.NeedSpace) == 0;
        if (!file.LostFlush)
        {
            // After a flush that failed, tables that are seen may not be on the disk, and nobody can tell: no work before the host
            // began anew.
            wrong ??= Say("after the fault", Check(file.Content(), mayLeak: true) ?? Work(file, mayFail: !heals));
            wrong ??= Say("at the end", Check(file.Content(), mayLeak: true) ?? Seen(file.Content(), _model.WrongToRead));
        }

        for (int outcome = 0; wrong is null && outcome < 2; outcome++)
        {
            wrong = Say("after a power cut", Left(file.CutPower(_random), settle: false));
        }

        return Say($"{status} at step {step} of {steps}, {count} times", wrong);
    }

    // With all that lies around the old end.
    private IReadOnlyList<(ulong From, ulong To)> Places => GrowsTo == 0 ? image.Spec.Places
        : [.. image.Spec.Places, .. Workload.PlacesOf(GrowsTo, (ulong)image.Spec.ClusterSize),
            (image.Spec.DiskSize, Math.Min(GrowsTo, image.Spec.DiskSize + (8 << 20)))];

    private static string? Say(string when, string? wrong) => wrong is null ? null : $"{when}: {wrong}";

    private CrashFile Wrap(SparseBytes content) => new(content, seed + _rounds++) { Delays = seed % 3 > 0 };

    // Opens, works, closes.
    private string? Work(CrashFile file, bool mayFail)
    {
        IDiskBackend disk;
        try
        {
            disk = open(image, image.Open(file));
        }
        catch (BlockException error)
        {
            return mayFail && error.Kind == BlockErrorKind.Io ? null : $"does not open: {error.Message}";
        }

        Workload load = new(seed + (1000 * _rounds++), queues, requests) { Places = image.Spec.Places, MayFail = mayFail };
        Task<string?> beside = Task.Factory.StartNew(
            () => Grow(disk, mayFail) ?? Beside?.Invoke(disk, mayFail), TaskCreationOptions.LongRunning);
        string? wrong = load.Run(disk, _model, out bool closed);
        wrong ??= beside.Wait(TimeSpan.FromSeconds(60)) ? beside.Result : "hangs: what is done beside";
        if (wrong is null && disk.Geometry.CapacityBytes == GrowsTo)
        {
            load = load with { Seed = load.Seed + 1, Places = Workload.PlacesOf(GrowsTo, (ulong)image.Spec.ClusterSize) };
            wrong = load.Run(disk, _model, out bool closedAgain);
            closed &= closedAgain;
        }

        if (!closed)
        {
            _model.Lost();
        }

        if (wrong?.StartsWith("hangs", StringComparison.Ordinal) != true)
        {
            disk.Dispose(); // waits for what hangs
        }

        return wrong;
    }

    // At a random moment of the work.
    private string? Grow(IDiskBackend disk, bool mayFail)
    {
        if (GrowsTo <= disk.Geometry.CapacityBytes)
        {
            return null;
        }

        try
        {
            Thread.Sleep(seed % 7);
            disk.Enlarge(GrowsTo);
            _hasGrown = true;
            return disk.Geometry.CapacityBytes == GrowsTo ? null : $"has {disk.Geometry.CapacityBytes} bytes after growing to {GrowsTo}";
        }
        catch (BlockException error)
        {
            Refused++;
            return mayFail && error.Kind != BlockErrorKind.BadSize ? null : $"does not grow: {error.Message}";
        }
    }

    private string? Check(SparseBytes top, bool mayLeak)
    {
        if (!image.IsImage)
        {
            return null;
        }

        string path = image.SaveTop(top);
        try
        {
            QemuJudge.Found found = QemuJudge.Check(path);
            Leaks += found.Leaks;
            return found.Errors > 0 || (found.Leaks > 0 && !mayLeak) ? $"qemu-img check: {found.Text}" : null;
        }
        finally
        {
            File.Delete(path);
        }
    }

    // What a power cut left: leaks at most, and nothing that was made durable is lost.
    private string? Left(SparseBytes after, bool settle) => Check(after, mayLeak: true) ?? Seen(after, (data, at) =>
    {
        string? wrong = _model.WrongToBeLeft(data, at);
        if (wrong is null && settle)
        {
            _model.Settle(data, at);
        }

        return wrong;
    });

    private string? Seen(SparseBytes top, LookAt check)
    {
        using CrashFile file = new(top, seed);
        try
        {
            using IDiskBackend disk = open(image, image.Open(file));
            ulong has = disk.Geometry.CapacityBytes;
            _seenSize = has;
            return (_hasGrown && has != GrowsTo) || (has != GrowsTo && has != image.Spec.DiskSize) ? $"has {has} bytes"
                : DiskReader.Read(disk, GrowsTo == 0 || has == GrowsTo ? Places : image.Spec.Places, check);
        }
        catch (BlockException error)
        {
            return $"does not open: {error.Message}";
        }
    }

    // The whole disk by QEMU's eyes is what our own reading of it says, which the model agrees with.
    private string? Compare(CrashFile file)
    {
        SparseBytes content = image.Content.Copy();
        string? wrong = Seen(file.Content(), (data, at) =>
        {
            content.Write(data, at);
            return _model.WrongToRead(data, at);
        });
        content.Length = _seenSize;
        if (wrong is not null || !image.IsImage)
        {
            return wrong;
        }

        string top = image.SaveTop(file.Content()), raw = image.SaveTop(content);
        try
        {
            return QemuJudge.Compare(top, raw);
        }
        finally
        {
            File.Delete(top);
            File.Delete(raw);
        }
    }
}
