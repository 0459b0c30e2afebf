using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Reads tables of 64-bit numbers piece by piece, so that no size that an image claims becomes memory.</summary>
internal static class TableSlices
{
    private const int SliceBytes = 64 * 1024;

    /// <summary>The entries of a table that are not 0, with their numbers. Behind the end of the file there are none.</summary>
    internal static IEnumerable<(uint Index, ulong Bits)> NonZero(IImageFile file, ulong offset, ulong entries, ToolProgress progress)
    {
        ulong length = Math.Min(entries * 8, offset >= file.Length ? 0 : (file.Length - offset + 7) & ~7ul);
        byte[] slice = new byte[Math.Min(SliceBytes, length)];
        for (ulong at = 0; at < length; at += SliceBytes)
        {
            int take = (int)Math.Min(SliceBytes, length - at);
            file.Read(slice.AsSpan(0, take), offset + at);
            progress.Advance(0);
            if (slice.AsSpan(0, take).IndexOfAnyExcept((byte)0) < 0)
            {
                continue;
            }

            for (int i = 0; i < take; i += 8)
            {
                if (BinaryPrimitives.ReadUInt64BigEndian(slice.AsSpan(i)) is not 0 and ulong bits)
                {
                    yield return ((uint)((at + (uint)i) / 8), bits);
                }
            }
        }
    }
}
