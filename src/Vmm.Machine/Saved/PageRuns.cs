namespace Vmm.Machine.Saved;

/// <summary>Runs of pages that are not all zeros: a page of zeros is a hole, in a file and in memory.</summary>
internal static class PageRuns
{
    private const int PageBytes = 4096;

    /// <summary>The next run.</summary>
    /// <param name="bytes">Pages; the last one may be shorter.</param>
    /// <param name="from">Where to look from, a multiple of the page size.</param>
    /// <param name="start">Where the run begins.</param>
    /// <param name="end">Where it ends.</param>
    /// <returns>False: all from there on are zeros.</returns>
    internal static bool TryFind(ReadOnlySpan<byte> bytes, int from, out int start, out int end)
    {
        for (start = from; start < bytes.Length && IsZero(bytes, start); start += PageBytes)
        {
            // a hole
        }

        for (end = start; end < bytes.Length && !IsZero(bytes, end); end += PageBytes)
        {
            // its pages
        }

        end = Math.Min(end, bytes.Length);
        return start < end;
    }

    private static bool IsZero(ReadOnlySpan<byte> bytes, int page) =>
        !bytes[page..Math.Min(page + PageBytes, bytes.Length)].ContainsAnyExcept((byte)0);
}
