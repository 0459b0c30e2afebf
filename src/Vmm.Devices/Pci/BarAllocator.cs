namespace Vmm.Devices.Pci;

/// <summary>Hands out naturally aligned BAR addresses of one window, the lowest that is free. Not thread-safe.</summary>
/// <param name="start">First address of the window.</param>
/// <param name="length">Bytes of the window.</param>
public sealed class BarAllocator(ulong start, ulong length)
{
    private readonly List<(ulong Start, ulong Length)> _taken = []; // in address order

    /// <summary>Takes <paramref name="size"/> bytes (a power of two).</summary>
    /// <param name="size">Bytes.</param>
    /// <param name="owner">Whom they are for, for the message.</param>
    /// <exception cref="InvalidOperationException">The window is full.</exception>
    public ulong Take(ulong size, string owner)
    {
        // At least a page, so that two functions never share one.
        ulong room = Math.Max(size, 4096);
        ulong at = AlignUp(start, room);
        int index = 0;
        for (; index < _taken.Count && !Fits(at, room, _taken[index].Start); index++)
        {
            at = AlignUp(_taken[index].Start + _taken[index].Length, room);
        }

        if (!Fits(at, room, start + length))
        {
            throw new InvalidOperationException(
                $"{owner}: the PCI window at 0x{start:x} (0x{length:x} bytes) has no 0x{size:x} bytes left for a BAR; "
                + "remove a device or give it less memory");
        }

        _taken.Insert(index, (at, room));
        return at;
    }

    /// <summary>Gives back what <see cref="Take"/> gave.</summary>
    public void Release(ulong at) => _taken.RemoveAll(range => range.Start == at);

    private static bool Fits(ulong at, ulong room, ulong end) => at <= end && room <= end - at;

    // A window never comes near 2^64, so neither does what is in it: only the rounding of an absurd size could wrap, to below the window.
    private static ulong AlignUp(ulong value, ulong unit) =>
        value > ulong.MaxValue - (unit - 1) ? ulong.MaxValue : (value + unit - 1) & ~(unit - 1);
}
