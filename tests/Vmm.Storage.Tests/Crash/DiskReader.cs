namespace Vmm.Storage.Tests.Crash;

/// <summary>What is wrong with what was read at an offset; null when nothing is.</summary>
internal delegate string? LookAt(ReadOnlySpan<byte> data, ulong offset);

/// <summary>Reads places of a disk, in pieces, with nothing else in flight.</summary>
internal static class DiskReader
{
    private const int Piece = 1 << 20;

    /// <summary>The first thing that is wrong with what is read; null when nothing is.</summary>
    public static string? Read(
        IDiskBackend disk, IReadOnlyList<(ulong From, ulong To)> places, LookAt check)
    {
        using DiskDriver driver = new(disk, 1);
        foreach ((ulong from, ulong to) in places)
        {
            for (ulong at = from; at < to; at += Piece)
            {
                byte[] data = new byte[Math.Min(Piece, to - at)];
                DiskStatus status = driver.Read(at, data);
                if ((status == DiskStatus.Ok ? check(data, at) : $"read of {data.Length} at {at}: {status}") is { } wrong)
                {
                    return wrong;
                }
            }
        }

        return null;
    }
}
