using System.Buffers.Binary;

namespace Vmm.Storage.Backup;

/// <summary>An extent of a delta.</summary>
/// <param name="Extent">Its number on the disk.</param>
/// <param name="Offset">Where its bytes are in the file.</param>
/// <param name="Stored">How many: none for zeros, all of them, or fewer that are compressed.</param>
/// <param name="Leaf">Its hash; valid until the cursor moves on.</param>
internal readonly record struct DeltaEntry(ulong Extent, ulong Offset, uint Stored, ReadOnlyMemory<byte> Leaf);

/// <summary>Goes through the table of a delta, part by part, and checks each entry. For one thread.</summary>
internal sealed class DeltaCursor(DeltaReader file)
{
    private const int EntriesOfPart = 512;

    private readonly byte[] _part = new byte[EntriesOfPart * DeltaFormat.EntryBytes];
    private readonly ulong _extents = DeltaFormat.ExtentsOf(file.Header.DiskBytes);
    private ulong _index, _offset = DeltaFormat.HeaderBytes, _least;

    /// <summary>The entry; after <see cref="MoveNext"/> said so.</summary>
    internal DeltaEntry Current { get; private set; }

    /// <summary>True until <see cref="MoveNext"/> said that there is no more.</summary>
    internal bool HasCurrent { get; private set; }

    /// <summary>Goes on to the next entry.</summary>
    /// <exception cref="BlockException">The table contradicts itself, or the host failed.</exception>
    internal bool MoveNext()
    {
        if (_index == file.Seal.Entries)
        {
            HasCurrent = false;
            return _offset == file.Seal.TableOffset ? false
                : throw DeltaFormat.Damaged(
                    file.Path, $"its extents end at byte {_offset}, and its table begins at {file.Seal.TableOffset}");
        }

        int slot = (int)(_index % EntriesOfPart) * DeltaFormat.EntryBytes;
        if (slot == 0)
        {
            int take = (int)Math.Min(EntriesOfPart, file.Seal.Entries - _index) * DeltaFormat.EntryBytes;
            file.ReadAt(_part.AsSpan(0, take), file.Seal.TableOffset + (_index * DeltaFormat.EntryBytes));
        }

        ulong extent = BinaryPrimitives.ReadUInt32LittleEndian(_part.AsSpan(slot));
        uint stored = BinaryPrimitives.ReadUInt32LittleEndian(_part.AsSpan(slot + 4));
        ReadOnlyMemory<byte> leaf = _part.AsMemory(slot + 8, DeltaFormat.HashBytes);
        string? problem = extent < _least || extent >= _extents ? "it is out of order, or behind the end of the disk"
            : stored > DeltaFormat.ExtentBytes || stored > file.Seal.TableOffset - _offset ? $"{stored} stored bytes cannot be"
            : (stored == 0) != leaf.Span.SequenceEqual(DeltaFormat.ZeroLeaf) ? "only zeros are stored as none, and always"
            : null;
        if (problem is not null)
        {
            throw DeltaFormat.Damaged(file.Path, problem, extent);
        }

        Current = new DeltaEntry(extent, _offset, stored, leaf);
        HasCurrent = true;
        (_offset, _least) = (_offset + stored, extent + 1);
        _index++;
        return true;
    }
}
