using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>An internal snapshot of an image (qcow2.rst, "Snapshots").</summary>
/// <param name="Id">Its unique id.</param>
/// <param name="Name">Its name.</param>
/// <param name="L1Offset">Where its L1 table lies.</param>
/// <param name="L1Size">Entries of that table.</param>
/// <param name="StateBytes">Bytes of the machine's state that came with it.</param>
/// <param name="Time">When it was taken.</param>
public sealed record Qcow2Snapshot(string Id, string Name, ulong L1Offset, uint L1Size, ulong StateBytes, DateTimeOffset Time);

/// <summary>Reads the table of internal snapshots, whose bytes may be anything.</summary>
internal static class SnapshotTable
{
    /// <summary>What is read of an image, as of QEMU: that many snapshots, a table that long, extra data that long.</summary>
    internal const uint MostSnapshots = 65536;

    private const ulong MostBytes = 64 << 20;
    private const uint FixedBytes = 40, MostExtra = 1024, NeededExtra = 16;

    /// <summary>Reads the snapshots one after the other.</summary>
    /// <param name="file">The image.</param>
    /// <param name="header">Its header.</param>
    /// <param name="problem">Gets what is wrong, with its place; reading ends then.</param>
    /// <param name="length">Gets the bytes of the table.</param>
    internal static List<Qcow2Snapshot> Read(IImageFile file, Qcow2Header header, Action<ulong, string> problem, out ulong length)
    {
        List<Qcow2Snapshot> snapshots = [];
        length = 0;
        if (header.Snapshots == 0)
        {
            return snapshots;
        }

        if (header.Snapshots > MostSnapshots || !header.Geometry.IsAligned(header.SnapshotsOffset) || header.SnapshotsOffset == 0)
        {
            problem(header.SnapshotsOffset, $"a table of {header.Snapshots} snapshots at {header.SnapshotsOffset} cannot be");
            return snapshots;
        }

        byte[] entry = new byte[FixedBytes];
        for (uint i = 0; i < header.Snapshots; i++)
        {
            ulong at = header.SnapshotsOffset + length;
            if (at > file.Length || file.Length - at < FixedBytes || length > MostBytes)
            {
                problem(at, $"the table of snapshots ends behind {i} of {header.Snapshots}");
                break;
            }

            file.Read(entry, at);
            length += ReadEntry(file, at, entry, header.Version, snapshots, problem);
        }

        return snapshots;
    }

    private static ulong ReadEntry(
        IImageFile file, ulong at, byte[] entry, uint version, List<Qcow2Snapshot> snapshots, Action<ulong, string> problem)
    {
        uint extra = BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(36));
        int id = BinaryPrimitives.ReadUInt16BigEndian(entry.AsSpan(12)), name = BinaryPrimitives.ReadUInt16BigEndian(entry.AsSpan(14));
        if (extra > MostExtra || (version >= 3 && extra < NeededExtra))
        {
            problem(at, $"snapshot entry at {at} has {extra} bytes of extra data, which cannot be");
        }

        byte[] words = new byte[id + name];
        file.Read(words, at + FixedBytes + extra);
        byte[] size = new byte[8];
        if (extra >= 8)
        {
            file.Read(size, at + FixedBytes);
        }

        ulong state = extra >= 8
            ? BinaryPrimitives.ReadUInt64BigEndian(size) : BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(32));
        snapshots.Add(new Qcow2Snapshot(
            Encoding.UTF8.GetString(words, 0, id),
            Encoding.UTF8.GetString(words, id, name),
            BinaryPrimitives.ReadUInt64BigEndian(entry),
            BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(8)),
            state,
            DateTimeOffset.FromUnixTimeSeconds(BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(16)))));
        return (FixedBytes + (ulong)extra + (uint)id + (uint)name + 7) & ~7ul;
    }
}
