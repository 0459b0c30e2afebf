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
        end = 0;
        if (!TryFindStart(file, from, out start))
        {
            return false;
        }

        long hole = FileCalls.Seek(file, (long)start, FileCalls.SeekHole);
        KernelException.ThrowIfError((int)Math.Min(hole, 0), "lseek SEEK_HOLE");
        end = (ulong)hole;
        return true;
    }

    /// <summary>Where the next range with data begins: half the work, where its end does not matter. The file's position changes.</summary>
    /// <param name="file">An open file or memfd.</param>
    /// <param name="from">Where to look from.</param>
    /// <param name="start">First byte with data; <paramref name="from"/> itself amid a range.</param>
    /// <returns>False when there is no data behind <paramref name="from"/>.</returns>
    /// <exception cref="KernelException">The file cannot say.</exception>
    public static bool TryFindStart(SafeHandle file, ulong from, out ulong start)
    {
        start = 0;
        long data = FileCalls.Seek(file, (long)from, FileCalls.SeekData);
        if (data == -Errno.ENXIO)
        {
            return false;
        }

        KernelException.ThrowIfError((int)Math.Min(data, 0), "lseek SEEK_DATA");
        start = (ulong)data;
        return true;
    }
}
