namespace Vmm.Storage.Tests.Crash;

/// <summary>What is done to a file.</summary>
[Flags]
internal enum FileSteps
{
    None = 0,
    Read = 1,
    Write = 2,
    Flush = 4,
    Punch = 8,
    Grow = 16,

    /// <summary>Everything that can change what a power cut leaves.</summary>
    Changes = Write | Flush | Punch | Grow,

    /// <summary>What a full file system refuses.</summary>
    NeedSpace = Write | Grow,
}

/// <summary>
/// Which steps of a file fail: the n-th from now on, counted over the kinds that a fault is for, and some behind it. Not
/// thread-safe: its file asks under its lock.
/// </summary>
internal sealed class FileFaults
{
    private readonly List<Fault> _faults = [];

    /// <summary>Steps that change something, so far.</summary>
    public int Changes { get; private set; }

    /// <summary>Steps that a fault ended.</summary>
    public int Struck { get; private set; }

    /// <summary>
    /// The <paramref name="number"/>-th of these steps fails (1 is the next one), and so many of those behind it that there are
    /// <paramref name="count"/> failures.
    /// </summary>
    public void FailAt(FileSteps steps, int number, DiskStatus status, int count = 1) =>
        _faults.Add(new Fault { Steps = steps, Left = number, Status = status, Count = count });

    /// <summary>The power goes amid the <paramref name="number"/>-th step that changes something.</summary>
    public void CutAt(int number) => _faults.Add(new Fault { Steps = FileSteps.Changes, Left = number, Count = 1, Cuts = true });

    /// <summary>The host works again.</summary>
    public void Clear() => _faults.Clear();

    /// <summary>A flush failed: what the file shows from then on may not be what a power cut leaves.</summary>
    public bool LostFlush { get; private set; }

    /// <summary>A step begins: how it is to end, and whether the power goes.</summary>
    internal DiskStatus Next(FileSteps step, out bool cut)
    {
        Changes += (step & FileSteps.Changes) != 0 ? 1 : 0;
        cut = false;
        DiskStatus status = DiskStatus.Ok;
        foreach (Fault fault in _faults)
        {
            if ((fault.Steps & step) != 0 && --fault.Left <= 0 && fault.Left > -fault.Count)
            {
                cut |= fault.Cuts;
                status = fault.Cuts ? DiskStatus.IoError : fault.Status;
            }
        }

        Struck += status == DiskStatus.Ok ? 0 : 1;
        LostFlush |= status != DiskStatus.Ok && step == FileSteps.Flush;
        return status;
    }

    private sealed class Fault
    {
        public FileSteps Steps;
        public int Left, Count;
        public DiskStatus Status;
        public bool Cuts;
    }
}
