using System.Globalization;

namespace Vmm.Memory;

/// <summary>
/// Where the memory of a VM's vnodes lies, from its process's <c>/proc/PID/numa_maps</c>: one walk of its page tables in the kernel,
/// without the process taking part. The text is the kernel's; names in it are the process's own.
/// </summary>
public static class NumaMaps
{
    private const int MostNodes = 1024, MostVnodes = 1024;
    private const string File = "file=/memfd:vmm:vnode";

    /// <summary>
    /// Bytes present per vnode and host node, of vnodes that have any memory mapped. Lines that say nothing about a vnode are skipped.
    /// </summary>
    /// <param name="text">Content of the file.</param>
    public static IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>> Parse(string text)
    {
        SortedDictionary<int, IReadOnlyDictionary<int, ulong>> vnodes = [];
        foreach (ReadOnlySpan<char> line in text.AsSpan().EnumerateLines())
        {
            int file = line.IndexOf(File, StringComparison.Ordinal);
            if (file < 0 || Number(line[(file + File.Length)..], out _) is not { } vnode || vnode >= MostVnodes)
            {
                continue;
            }

            if (!vnodes.TryGetValue((int)vnode, out IReadOnlyDictionary<int, ulong>? known))
            {
                vnodes[(int)vnode] = known = new SortedDictionary<int, ulong>();
            }

            AddLine(line[file..], (SortedDictionary<int, ulong>)known);
        }

        return vnodes;
    }

    /// <summary><c>… N0=100 N1=2 kernelpagesize_kB=4</c>: counts of pages of that size.</summary>
    private static void AddLine(ReadOnlySpan<char> line, SortedDictionary<int, ulong> bytes)
    {
        const string PageSize = " kernelpagesize_kB=";
        int at = line.IndexOf(PageSize, StringComparison.Ordinal);
        ulong kib = at >= 0 && Number(line[(at + PageSize.Length)..], out _) is { } size and <= 1 << 20 ? size : 4;
        foreach (Range range in line.Split(' '))
        {
            ReadOnlySpan<char> word = line[range];
            if (word is ['N', ..] && Number(word[1..], out int digits) is { } node and < MostNodes
                && word[(1 + digits)..] is ['=', .. var rest] && Number(rest, out int length) is { } pages && length == rest.Length
                && pages <= 1UL << 32)
            {
                bytes[(int)node] = bytes.GetValueOrDefault((int)node) + (pages * kib * 1024);
            }
        }
    }

    /// <summary>The number a text begins with.</summary>
    private static ulong? Number(ReadOnlySpan<char> text, out int digits)
    {
        digits = text.IndexOfAnyExceptInRange('0', '9');
        digits = digits < 0 ? text.Length : digits;
        return ulong.TryParse(text[..digits], NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : null;
    }
}
