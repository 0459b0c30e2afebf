using System.Runtime.InteropServices;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>Where a sparse file has data, lseek(2).</summary>
public static class DataExtents
{
    /// <summary>The next range with data. The file's position changes, which nothing here uses.</summary>
    /// <param name="file">An open file or memfd.</param>
    /// <param name="from">Where to look from.</param>
    /// <param name="start">First byte of the range.</param>
    /// <param name="end">The first byte behind it.</param>
    /// <returns>False when there is no data behind <paramref name="from"/>.</returns>
    /// <exception cref="KernelException">The file cannot say.</exception>
    public static bool TryFindNext(SafeHandle file, ulong from, out ulong start, out ulong end)
    {
        (start, end) = (0, 0);
        long data = FileCalls.Seek(file, (long)from, FileCalls.SeekData);
        if (data == -Errno.ENXIO)
        {
            return false;
        }

        KernelException.ThrowIfError((int)Math.Min(data, 0), "lseek SEEK_DATA");
        long hole = FileCalls.Seek(file, data, FileCalls.SeekHole);
        KernelException.ThrowIfError((int)Math.Min(hole, 0), "lseek SEEK_HOLE");
        (start, end) = ((ulong)data, (ulong)hole);
        return true;
    }
}
