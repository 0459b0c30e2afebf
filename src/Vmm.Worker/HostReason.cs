using Vmm.Contracts;

namespace Vmm.Worker;

/// <summary>
/// Why the host changed something of the VM, kept by the worker because it outlives a daemon: the next one learns from it what was taken,
/// and that it was not a person who did it. Any thread.
/// </summary>
internal sealed class HostReason
{
    private const int Longest = 300;

    private (string? Reason, DateTimeOffset? Since) _now;
    private readonly Lock _gate = new();

    /// <summary>The reason and when it was given; nulls when there is none.</summary>
    internal (string? Reason, DateTimeOffset? Since) Now
    {
        get
        {
            lock (_gate)
            {
                return _now;
            }
        }
    }

    /// <summary>Something was changed; null: nobody gave a reason.</summary>
    internal void Set(string? reason)
    {
        lock (_gate)
        {
            _now = reason is null ? (null, null) : (SafeText.Line(reason, Longest), (DateTimeOffset?)DateTimeOffset.UtcNow);
        }
    }
}
