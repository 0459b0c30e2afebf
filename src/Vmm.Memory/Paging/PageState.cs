namespace Vmm.Memory.Paging;

/// <summary>Where a page of guest memory is. Twin of the states in native-shim/pager.c; the low three bits of a byte.</summary>
internal enum PageState : byte
{
    /// <summary>Not in memory; it reads as zeros.</summary>
    Empty = 0,

    /// <summary>In memory. Whoever uses it sets <see cref="ResidencyCache.UsedBit"/>.</summary>
    Resident = 1,

    /// <summary>In memory, but mapped by nobody: the next access makes it resident again.</summary>
    Staged = 2,

    /// <summary>In the swap store.</summary>
    Out = 3,

    /// <summary>One thread works on it. That thread wakes who waits for the page when it is done.</summary>
    Moving = 4,

    /// <summary>In the file of a saved VM that it comes from, and nowhere else (<see cref="PageRestorer"/>).</summary>
    Saved = 5,
}
