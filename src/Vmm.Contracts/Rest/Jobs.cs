namespace Vmm.Contracts.Rest;

/// <summary>Where a job stands.</summary>
public enum JobState
{
    /// <summary>It is being done.</summary>
    Running,

    /// <summary>Done.</summary>
    Done,

    /// <summary>It failed; <see cref="JobInfo.Error"/> says why.</summary>
    Failed,

    /// <summary>Somebody cancelled it.</summary>
    Cancelled,

    /// <summary>The daemon ended while it was being done.</summary>
    Interrupted,
}

/// <summary>Work that takes time.</summary>
/// <param name="Id">Names it.</param>
/// <param name="Kind">What is done: <c>vm-stop</c>, <c>vm-rehome</c>, <c>disk-create</c>.</param>
/// <param name="Target">To what: the name of a VM or a disk.</param>
/// <param name="State">Where it stands.</param>
/// <param name="Progress">From 0 to 1.</param>
/// <param name="Created">When it was asked for.</param>
/// <param name="Ended">When it ended; null while it runs.</param>
/// <param name="Error">Why it failed.</param>
/// <param name="Owner">Who asked for it, as in the audit log; null for one of the daemon's own, or of an older daemon.</param>
/// <param name="Move">Of the move of a VM: how far it is.</param>
public sealed record JobInfo(string Id, string Kind, string Target, JobState State, double Progress, DateTimeOffset Created,
    DateTimeOffset? Ended = null, Problem? Error = null, string? Owner = null, MoveProgress? Move = null);

/// <summary>Jobs, the newest first.</summary>
/// <param name="Jobs">The jobs.</param>
public sealed record JobList(IReadOnlyList<JobInfo> Jobs);
