namespace Vmm.Memory;

/// <summary>
/// Something that follows which guest addresses are RAM for devices: the kernel's network path, later an IOMMU. Calls come on the thread
/// that changes the map, one change at a time, and that thread goes on when every listener has returned.
/// </summary>
public interface IMemoryListener
{
    /// <summary>RAM is about to come. What this throws refuses it: the others are told <see cref="Removed"/>.</summary>
    void Adding(in GuestRegion region);

    /// <summary>It is in <see cref="GuestRam.RegionSpan"/>. Throws nothing.</summary>
    void Added(in GuestRegion region);

    /// <summary>RAM is about to go; on return no new access to it begins. Throws nothing.</summary>
    void Removing(in GuestRegion region);

    /// <summary>
    /// It is no longer in <see cref="GuestRam.RegionSpan"/>; on return nothing accesses it any more, and its pages may go. Throws nothing.
    /// </summary>
    void Removed(in GuestRegion region);
}

/// <summary>The listeners of one guest's RAM. Any thread.</summary>
public sealed class MemoryListeners
{
    private readonly Lock _gate = new();
    private IMemoryListener[] _all = []; // replaced whole

    /// <summary>
    /// Calls the listener from now on. One that joins during a change gets its phases from there on: look at
    /// <see cref="GuestRam.RegionSpan"/> after this, and no region is missed.
    /// </summary>
    public void Add(IMemoryListener listener)
    {
        lock (_gate)
        {
            Volatile.Write(ref _all, [.. _all, listener]);
        }
    }

    /// <summary>
    /// Calls it no more; a call that runs goes on. Never waits for a change, so that it can come from anywhere, also from a listener.
    /// </summary>
    public void Remove(IMemoryListener listener)
    {
        lock (_gate)
        {
            Volatile.Write(ref _all, Array.FindAll(_all, each => !ReferenceEquals(each, listener)));
        }
    }

    internal void TellAdding(in GuestRegion region)
    {
        IMemoryListener[] all = Volatile.Read(ref _all);
        for (int i = 0; i < all.Length; i++)
        {
            try
            {
                all[i].Adding(region);
            }
            catch
            {
                for (int told = 0; told < i; told++)
                {
                    all[told].Removed(region);
                }

                throw;
            }
        }
    }

    internal void TellAdded(in GuestRegion region)
    {
        foreach (IMemoryListener listener in Volatile.Read(ref _all))
        {
            listener.Added(region);
        }
    }

    internal void TellRemoving(in GuestRegion region)
    {
        foreach (IMemoryListener listener in Volatile.Read(ref _all))
        {
            listener.Removing(region);
        }
    }

    internal void TellRemoved(in GuestRegion region)
    {
        foreach (IMemoryListener listener in Volatile.Read(ref _all))
        {
            listener.Removed(region);
        }
    }
}
