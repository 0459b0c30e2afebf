using System.Text.Json.Serialization;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Control;

/// <summary>What a guest tells of itself while it runs.</summary>
public enum GuestEvent
{
    /// <summary>Its kernel panicked; the spec says what follows.</summary>
    Panicked,

    /// <summary>Its kernel panicked, and its crash kernel takes over.</summary>
    CrashKernel,
}

/// <summary>A guest told something.</summary>
/// <param name="Event">What.</param>
public sealed record GuestEventBody(GuestEvent Event);

/// <summary>How the host fails a disk.</summary>
public enum DiskFault
{
    /// <summary>Its file system is full, or a quota is used up.</summary>
    NoSpace,

    /// <summary>Any other error.</summary>
    IoError,
}

/// <summary>The host fails requests of a disk; the guest gets I/O errors.</summary>
/// <param name="Disk">Its name in this run: <c>disk0</c>, ...</param>
/// <param name="Fault">How.</param>
public sealed record DiskErrorBody(string Disk, DiskFault Fault);

/// <summary>A disk waits for the host, or goes on; its requests are kept meanwhile.</summary>
/// <param name="Disk">Its name in this run: <c>disk0</c>, ...</param>
/// <param name="Fault">How the host fails it.</param>
/// <param name="Waits">The VM is paused; false: it goes on by itself.</param>
public sealed record DiskStallBody(string Disk, DiskFault Fault, bool Waits);

/// <summary>Pages of a VM with a resident limit do not go out any more, or do again.</summary>
/// <param name="Reason">Why not; null: they do.</param>
public sealed record PagingStoppedBody(string? Reason);

/// <summary>How far a lazy restore is.</summary>
/// <param name="TotalBytes">Memory in the saved files, zeros between it among them.</param>
/// <param name="LeftBytes">What is in the files only.</param>
/// <param name="AwaitedBytes">What the guest or a device waited for; the rest came by itself.</param>
/// <param name="Milliseconds">Since the guest went on; at the end: until all was there.</param>
public sealed record MemoryRestoreInfo(ulong TotalBytes, ulong LeftBytes, ulong AwaitedBytes, long Milliseconds);

/// <summary>The end of a VM.</summary>
/// <param name="Reason">Why.</param>
/// <param name="ExitCode">The guest's debug-exit code, or what <c>vmmctl run</c> would exit with.</param>
/// <param name="Message">For people; null when the reason says it all.</param>
/// <param name="Report">After a fault: what the vCPUs looked like, for people, line by line; null otherwise, and in what a later daemon
/// knows.</param>
public sealed record WorkerExit(ExitReason Reason, int ExitCode, string? Message, IReadOnlyList<string>? Report = null);

/// <summary>Counters of a running VM since its start.</summary>
/// <param name="CpuMilliseconds">CPU time of all threads of the worker.</param>
/// <param name="ResidentBytes">Resident memory of the worker, guest memory included.</param>
/// <param name="Exits">KVM exits to user space, all vCPUs.</param>
/// <param name="Disks">One entry per disk, in guest order.</param>
/// <param name="Nets">One entry per network device, in guest order.</param>
/// <param name="Throttling">How often its CPU quota was used up: the daemon adds this, a worker does not know; null where the host cannot
/// limit it.</param>
/// <param name="Paging">Which part of its memory is resident; left out when all may be.</param>
/// <param name="Shares">One entry per shared folder, in guest order; left out when there is none, or it is not known.</param>
/// <param name="Restore">Its lazy restore, while that goes on; left out otherwise.</param>
public sealed record WorkerStats(
    long CpuMilliseconds,
    long ResidentBytes,
    long Exits,
    IReadOnlyList<DiskStats> Disks,
    IReadOnlyList<NetStats> Nets,
    CpuThrottling? Throttling = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] PagingInfo? Paging = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<ShareStats>? Shares = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] MemoryRestoreInfo? Restore = null);

/// <summary>Counters of one shared folder.</summary>
/// <param name="Name"><c>fs0</c>, …</param>
/// <param name="Requests">FUSE requests that virtiofsd completed.</param>
/// <param name="Losses">How often its virtiofsd was lost.</param>
/// <param name="Connected">A virtiofsd serves it now.</param>
public sealed record ShareStats(string Name, long Requests, long Losses, bool Connected);

/// <summary>Counters of one disk.</summary>
/// <param name="Name"><c>disk0</c>, …</param>
/// <param name="ReadRequests">Finished reads.</param>
/// <param name="ReadBytes">Bytes of them.</param>
/// <param name="WriteRequests">Finished writes.</param>
/// <param name="WrittenBytes">Bytes of them.</param>
/// <param name="Flushes">Finished flushes.</param>
/// <param name="Errors">Requests answered with an error.</param>
/// <param name="InFlight">Requests that storage works on now; null: a worker that does not tell.</param>
/// <param name="Held">Requests held back now, e.g. by a rate limit; null: a worker that does not tell.</param>
/// <param name="Wait">How long requests were held before they went to storage; null: a worker that does not tell.</param>
/// <param name="Storage">How long storage took for them; null: a worker that does not tell.</param>
public sealed record DiskStats(
    string Name, long ReadRequests, long ReadBytes, long WriteRequests, long WrittenBytes, long Flushes, long Errors,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? InFlight = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Held = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] LatencyStats? Wait = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] LatencyStats? Storage = null);

/// <summary>How long requests took at one stage.</summary>
/// <param name="Counts">Requests by bucket, at most 64: below 1 µs, below 2, below 4, …; the last one is without end.</param>
/// <param name="Microseconds">All of them together.</param>
public sealed record LatencyStats(IReadOnlyList<long> Counts, long Microseconds)
{
    /// <summary>A bound in microseconds below which this part of the requests was; null: there were none, or it has no bound.</summary>
    /// <param name="part">0 to 1, e.g. 0.99.</param>
    public long? Below(double part)
    {
        long all = Counts.Sum(), seen = 0;
        for (int i = 0; i < Counts.Count - 1 && all > 0; i++)
        {
            seen += Counts[i];
            if (seen >= part * all)
            {
                return 1L << i;
            }
        }

        return null;
    }
}

/// <summary>Counters of one network device, from the guest's side.</summary>
/// <param name="Name"><c>net0</c>, …</param>
/// <param name="ReceivedPackets">Frames the guest got.</param>
/// <param name="ReceivedBytes">Bytes of them.</param>
/// <param name="SentPackets">Frames the guest sent.</param>
/// <param name="SentBytes">Bytes of them.</param>
/// <param name="Dropped">Frames that did not reach it, or that it should not have sent.</param>
/// <param name="KernelTap">The tap, when the host's kernel moves the frames (vhost-net): then the counters are the tap's own, from when it
/// was made; null: the worker moves them.</param>
public sealed record NetStats(
    string Name, long ReceivedPackets, long ReceivedBytes, long SentPackets, long SentBytes, long Dropped, string? KernelTap = null);
