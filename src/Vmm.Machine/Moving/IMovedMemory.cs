using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Machine.Moving;

/// <summary>Memory that gets its pages from channels. Several threads, never two for the same page.</summary>
internal interface IMovedMemory
{
    /// <summary>Its size, whole pages.</summary>
    ulong Bytes { get; }

    /// <summary>Writes pages.</summary>
    /// <exception cref="KernelException">The host has no memory left.</exception>
    void Fill(ulong offset, ReadOnlySpan<byte> pages);

    /// <summary>Makes pages zeros.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    void Clear(ulong offset, ulong length);
}

/// <summary>Memory of a vnode that no machine uses yet.</summary>
/// <param name="memory">The memory.</param>
/// <param name="comesAndGoes">Its huge pages are not there before they are asked for.</param>
internal sealed class ReceivedPart(VnodeMemory memory, bool comesAndGoes) : IMovedMemory
{
    private readonly bool _takesPages = comesAndGoes && memory.PageSize > MoveFrame.PageBytes;

    /// <inheritdoc/>
    public ulong Bytes => memory.Placement.Size;

    /// <inheritdoc/>
    public void Fill(ulong offset, ReadOnlySpan<byte> pages)
    {
        if (_takesPages)
        {
            ulong first = offset / memory.PageSize * memory.PageSize;
            ulong end = (offset + (uint)pages.Length + memory.PageSize - 1) / memory.PageSize * memory.PageSize;
            if (!memory.TryPopulate(first, end - first, out _))
            {
                throw new KernelException($"no page of {memory.PageSize >> 20} MiB is left for memory that was plugged", Errno.ENOMEM);
            }
        }

        memory.Fill(offset, pages);
    }

    /// <inheritdoc/>
    public void Clear(ulong offset, ulong length) => memory.Clear(offset, length);
}
