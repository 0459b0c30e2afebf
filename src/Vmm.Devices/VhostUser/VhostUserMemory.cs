using Vmm.Memory;

namespace Vmm.Devices.VhostUser;

/// <summary>
/// Which memory of the guest a back end is to have: every piece of a file of which something is memory now. A vnode's memory that comes and
/// goes is one piece, so that most of its changes need no new table.
/// </summary>
internal sealed class VhostUserMemory(GuestMemory memory, IReadOnlyList<MemoryExtent> all, Func<Action, bool> post) : IMemoryListener
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5); // who changes the memory does not wait for a back end that hangs

    private volatile MemoryExtent[]? _shown;

    /// <summary>Those that are there now, and that the back end is given.</summary>
    internal MemoryExtent[] Present() => _shown = Find();

    /// <summary>From now on changes are followed.</summary>
    internal void Follow() => memory.Ram.Listeners.Add(this);

    /// <summary>Not any more.</summary>
    internal void Unfollow() => memory.Ram.Listeners.Remove(this);

    void IMemoryListener.Adding(in GuestRegion region)
    {
        // The back end learns of it before the driver may use it.
    }

    void IMemoryListener.Added(in GuestRegion region) => Change();

    void IMemoryListener.Removing(in GuestRegion region)
    {
        // The table is exchanged at once, when the regions are.
    }

    void IMemoryListener.Removed(in GuestRegion region) => Change();

    // A back end that does not answer in time keeps its mapping of the file: what it touches there is memory lost, and nobody else's.
    private void Change()
    {
        if (_shown is not { } shown || Find().AsSpan().SequenceEqual(shown))
        {
            return;
        }

        ManualResetEventSlim done = new(); // not disposed: it may be set after the patience is over
        if (post(done.Set))
        {
            done.Wait(s_patience);
        }
    }

    private MemoryExtent[] Find()
    {
        List<MemoryExtent> present = [];
        foreach (MemoryExtent extent in all)
        {
            if (extent.IsPresent(memory.RegionSpan))
            {
                present.Add(extent);
            }
        }

        return [.. present];
    }
}
