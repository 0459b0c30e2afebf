using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>A range of guest addresses whose memory is a piece of a file: what another process needs to map it (vhost-user).</summary>
/// <param name="Start">First guest physical address.</param>
/// <param name="Length">How much it is.</param>
/// <param name="File">The file, which outlives the machine's devices.</param>
/// <param name="Offset">Where in the file it begins.</param>
public readonly record struct MemoryExtent(GuestAddress Start, ByteSize Length, FileDescriptorHandle File, ulong Offset)
{
    /// <summary>Some of it is memory now.</summary>
    public bool IsPresent(ReadOnlySpan<GuestRegion> regions)
    {
        foreach (ref readonly GuestRegion region in regions)
        {
            if (region.Start.Value < Start.Value + Length && Start.Value < region.Start.Value + region.Length)
            {
                return true;
            }
        }

        return false;
    }
}
