namespace Vmm.Storage.Changes;

/// <summary>Why a change log does not know what was written: everything may have been. The numbers are in the file.</summary>
public enum ChangeUnknown : uint
{
    /// <summary>It knows.</summary>
    None = 0,

    /// <summary>The log begins here.</summary>
    New = 1,

    /// <summary>The disk was changed while the VM was off, or does not tell whether it was.</summary>
    ChangedOffline = 2,

    /// <summary>The VM ran where the log was not kept.</summary>
    Moved = 3,

    /// <summary>The log's file is damaged.</summary>
    Damaged = 4,

    /// <summary>The log could not be written.</summary>
    LogFailed = 5,

    /// <summary>The disk grew, and the log had no room.</summary>
    Grown = 6,

    /// <summary>The log is of another disk, or of a disk of another size.</summary>
    OtherDisk = 7,

    /// <summary>Nobody was there when the VM ended.</summary>
    NotClosed = 8,

    /// <summary>The log is an old one.</summary>
    OldGeneration = 9,

    /// <summary>The log was stopped, and the disk was used meanwhile.</summary>
    Stopped = 10,
}

/// <summary>The reasons in words.</summary>
public static class ChangeUnknownText
{
    /// <summary>What an operator reads.</summary>
    public static string Describe(this ChangeUnknown reason) => reason switch
    {
        ChangeUnknown.None => "the log knows what was written",
        ChangeUnknown.New => "the log begins here",
        ChangeUnknown.ChangedOffline => "the disk was changed while the VM was off, or does not tell whether it was",
        ChangeUnknown.Moved => "the VM ran where the log was not kept",
        ChangeUnknown.Damaged => "the log's file is damaged",
        ChangeUnknown.LogFailed => "the log could not be written",
        ChangeUnknown.Grown => "the disk grew, and the log had no room",
        ChangeUnknown.OtherDisk => "the log is of another disk, or of one of another size",
        ChangeUnknown.NotClosed => "nobody was there when the VM ended",
        ChangeUnknown.OldGeneration => "the log is an old one",
        ChangeUnknown.Stopped => "the log was stopped, and the disk was used meanwhile",
        _ => "the log's file has a reason that this release does not know",
    };
}
