using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>What the pager knows of one <see cref="VnodeMemory"/>.</summary>
internal sealed class VnodePaging(ResidencyCache pages, int span, PageRelocator relocator, PageReader reader)
{
    private readonly Lock _reading = new();
    private MoverRoom? _room; // when something is read

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

    /// <summary>Reads pages and leaves them where they are.</summary>
    /// <param name="offset">First byte, at a page border.</param>
    /// <param name="content">Where to, whole pages.</param>
    internal void Read(ulong offset, Span<byte> content)
    {
        lock (_reading)
        {
            reader.Read(First + (offset / ByteSize.BytesPerPage), content, _room ??= new MoverRoom());
        }
    }

    /// <summary>Makes pages known to the kernel that asks for their nodes.</summary>
    internal void Unstage(ulong first, int count) => relocator.Unstage(First + first, (ulong)count);

    /// <summary>Moves pages to another host node, as far as nobody else works on them.</summary>
    /// <returns>0, or the errno with which the kernel gave up.</returns>
    internal int Move(ReadOnlySpan<ulong> moved, int hostNode)
    {
        ulong[] numbers = [.. moved];
        for (int i = 0; i < numbers.Length; i++)
        {
            numbers[i] += First;
        }

        return relocator.Move(numbers, hostNode);
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
