using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>Moves pages of memfds with userfaultfd. Any thread.</summary>
internal sealed class UserfaultMapper(Userfault faults, ResidencyCache pages, IReadOnlyList<VnodeMemory> memories) : IPageMapper
{
    private const int PageBytes = ISwapStore.PageBytes;
    private volatile bool _isOver;

    /// <summary>From now on the kernel maps pages by itself: it refuses to be told, and need not be.</summary>
    internal void End() => _isOver = true;

    /// <inheritdoc/>
    public void Unmap(ulong page, int count) => Userfault.Unmap(AddressOf(page), (ulong)count * PageBytes);

    /// <inheritdoc/>
    public void Read(ulong page, int count, Span<byte> content)
    {
        VnodeMemory memory = memories[pages.SpanOf(page, out ulong inside)];
        memory.ReadFile(inside * PageBytes, content[..(count * PageBytes)]);
    }

    /// <inheritdoc/>
    public void Peek(ulong page, int count, Span<byte> content) => Read(page, count, content);

    /// <inheritdoc/>
    public int MoveTo(ReadOnlySpan<ulong> moved, int hostNode)
    {
        VnodeMemory memory = memories[pages.SpanOf(moved[0], out ulong first)];
        Span<ulong> inside = stackalloc ulong[moved.Length];
        for (int i = 0; i < inside.Length; i++)
        {
            inside[i] = moved[i] - moved[0] + first;
        }

        return memory.MoveMapped(inside, hostNode);
    }

    /// <inheritdoc/>
    public void Drop(ulong page, int count)
    {
        if (HostPages.Discard(AddressOf(page), (ulong)count * PageBytes) is not 0 and var errno)
        {
            throw new KernelException("MADV_REMOVE of guest memory", errno);
        }
    }

    /// <inheritdoc/>
    public bool Protects => faults.Protects;

    /// <inheritdoc/>
    public uint Written(ulong page, int count) => faults.Written(AddressOf(page), count);

    /// <inheritdoc/>
    public unsafe void Fill(ulong page, ReadOnlySpan<byte> content, bool kept)
    {
        fixed (byte* source = content)
        {
            Check(faults.Copy(AddressOf(page), (nint)source, (ulong)content.Length, kept), "UFFDIO_COPY");
        }
    }

    /// <inheritdoc/>
    public void Zero(ulong page)
    {
        int errno = faults.Zero(AddressOf(page), PageBytes);
        Check(errno == Errno.EEXIST ? faults.Continue(AddressOf(page), PageBytes) : errno, "UFFDIO_ZEROPAGE");
    }

    /// <inheritdoc/>
    public void Map(ulong page, bool kept)
    {
        int errno = faults.Continue(AddressOf(page), PageBytes, kept);
        if (errno == Errno.EFAULT)
        {
            Zero(page); // somebody else made a hole in the file
            return;
        }

        Check(errno, "UFFDIO_CONTINUE");
    }

    /// <inheritdoc/>
    public void Wake(ulong page, int count) => faults.Wake(AddressOf(page), (ulong)count * PageBytes);

    private void Check(int errno, string call)
    {
        if (errno != 0 && !_isOver)
        {
            throw new KernelException(call + " of guest memory", errno);
        }
    }

    private nint AddressOf(ulong page)
    {
        int span = pages.SpanOf(page, out ulong inside);
        return (nint)(pages.Board.Spans[span].Address + (inside * PageBytes));
    }
}
