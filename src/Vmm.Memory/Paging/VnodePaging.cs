using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>What the pager knows of one <see cref="VnodeMemory"/>.</summary>
internal sealed class VnodePaging(ResidencyCache pages, int span)
{
    private ulong First => pages.Board.Spans[span].First;

    private ulong End => First + pages.Board.Spans[span].Pages;

    /// <summary>The next range that has a content, in memory or out.</summary>
    internal bool TryFindData(ulong from, out ulong start, out ulong end)
    {
        start = end = 0;
        if (!pages.TryFindContent(First + (from / ByteSize.BytesPerPage), End, hasContent: true, out ulong first))
        {
            return false;
        }

        pages.TryFindContent(first, End, hasContent: false, out ulong last);
        start = Math.Max(from, (first - First) * ByteSize.BytesPerPage);
        end = (last - First) * ByteSize.BytesPerPage;
        return true;
    }

    /// <summary>Copies where pages may have to come first.</summary>
    internal static unsafe void Copy(nint from, Span<byte> to)
    {
        fixed (byte* first = to)
        {
            Userfault.CopyBytes((nint)first, from, (ulong)to.Length);
        }
    }

    /// <summary>The other way.</summary>
    internal static unsafe void Copy(ReadOnlySpan<byte> from, nint to)
    {
        fixed (byte* first = from)
        {
            Userfault.CopyBytes(to, (nint)first, (ulong)from.Length);
        }
    }
}
