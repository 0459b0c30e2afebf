using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>A page that the guest wrote.</summary>
/// <param name="Slot">Memory slot.</param>
/// <param name="Page">Page within the slot.</param>
public readonly record struct DirtyPage(uint Slot, ulong Page);

/// <summary>
/// Reads the pages that one vCPU dirtied, in the order in which it did: what it costs follows what was written, where a bitmap costs by the
/// size of memory. One thread at a time. When the ring is full the vCPU leaves with <see cref="KvmExit.DirtyRingFull"/> until pages were
/// collected and <see cref="KvmVm.ResetDirtyRings"/> gave their entries back.
/// </summary>
public sealed class KvmDirtyRing : IDisposable
{
    private readonly DirtyRingMapping _ring;
    private uint _next;

    internal KvmDirtyRing(DirtyRingMapping ring) => _ring = ring;

    /// <summary>Entries it has room for; the kernel keeps some of them for itself.</summary>
    public int Capacity => _ring.Count;

    /// <summary>
    /// Takes what is there, up to the length of <paramref name="pages"/>; answers how many. A page can come more than once.
    /// </summary>
    /// <exception cref="ObjectDisposedException">It was disposed.</exception>
    public int Collect(Span<DirtyPage> pages)
    {
        int count = 0;
        while (count < pages.Length && _ring.TryTake(_next, out uint slot, out ulong page))
        {
            pages[count++] = new DirtyPage(slot, page);
            _next++;
        }

        return count;
    }

    /// <inheritdoc/>
    public void Dispose() => _ring.Dispose();
}
