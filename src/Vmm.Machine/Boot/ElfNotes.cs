using System.Buffers.Binary;

namespace Vmm.Machine.Boot;

/// <summary>
/// Looks for the PVH entry in note segments (gABI chapter 5, Note Section; Xen public/elfnote.h). Linkers put notes with 4-byte padding
/// into one segment with property notes, whose padding is 8 bytes, so that the alignment of the segment says little: every note is tried
/// with both.
/// </summary>
internal static class ElfNotes
{
    private const ulong MaxBytes = 1 << 20;
    private const int HeaderBytes = 12;
    private const uint Phys32Entry = 18;

    /// <summary>The entry address and where in the file it stands; null when the segment cannot be read or has none below 4 GiB.</summary>
    internal static (ulong Entry, ulong Field)? FindPvhEntry(BootFile file, ulong offset, ulong size)
    {
        if (size > MaxBytes || !file.Contains(offset, size))
        {
            return null;
        }

        byte[] notes = new byte[size];
        file.Read(offset, notes, "notes");
        return Find(notes) is { } at ? (at.Entry, offset + at.Place) : null;
    }

    // Every place where a note can start is looked at once: the cost is linear in the size, whatever the lengths in the notes say.
    private static (ulong Entry, ulong Place)? Find(byte[] notes)
    {
        bool[] seen = new bool[(notes.Length / 4) + 1];
        Stack<int> places = new([0]);
        while (places.TryPop(out int at))
        {
            if (notes.Length - at < HeaderBytes || seen[at / 4])
            {
                continue;
            }

            seen[at / 4] = true;
            ulong nameSize = BinaryPrimitives.ReadUInt32LittleEndian(notes.AsSpan(at));
            ulong descriptorSize = BinaryPrimitives.ReadUInt32LittleEndian(notes.AsSpan(at + 4));
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(notes.AsSpan(at + 8));
            foreach (ulong unit in (ReadOnlySpan<ulong>)[8, 4])
            {
                ulong descriptor = RoundUp((ulong)(at + HeaderBytes) + nameSize, unit);
                if (descriptor + descriptorSize > (ulong)notes.Length)
                {
                    continue;
                }

                if (type == Phys32Entry && IsXen(notes, at, nameSize)
                    && Entry(notes.AsSpan((int)descriptor, (int)descriptorSize)) is { } entry)
                {
                    return (entry, descriptor);
                }

                places.Push((int)Math.Min(RoundUp(descriptor + descriptorSize, 8), (ulong)notes.Length));
                places.Push((int)Math.Min(RoundUp(descriptor + descriptorSize, 4), (ulong)notes.Length));
            }
        }

        return null;
    }

    private static bool IsXen(byte[] notes, int at, ulong nameSize) =>
        nameSize == 4 && notes.AsSpan(at + HeaderBytes, 4).SequenceEqual("Xen\0"u8);

    private static ulong? Entry(ReadOnlySpan<byte> descriptor)
    {
        ulong entry = descriptor.Length switch
        {
            4 => BinaryPrimitives.ReadUInt32LittleEndian(descriptor),
            8 => BinaryPrimitives.ReadUInt64LittleEndian(descriptor),
            _ => ulong.MaxValue,
        };
        return entry <= uint.MaxValue ? entry : null;
    }

    private static ulong RoundUp(ulong value, ulong unit) => (value + unit - 1) & ~(unit - 1);
}
