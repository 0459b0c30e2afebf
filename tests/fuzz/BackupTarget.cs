using System.Buffers.Binary;
using System.Security.Cryptography;
using Vmm.Storage;
using Vmm.Storage.Backup;

namespace Vmm.Fuzz;

/// <summary>
/// What a backup folder may hold, by the first byte: a delta of any bytes, a delta whose header, table and seal have sound hashes so that
/// what lies behind them is met, or a <c>point.json</c>. It is read to its end, or refused with one error of bounded length.
/// </summary>
internal static class BackupTarget
{
    private const int Kinds = 3;

    internal static void Run(byte[] input)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-fuzz-backup-").FullName;
        try
        {
            ReadOnlySpan<byte> rest = input.AsSpan(Math.Min(1, input.Length));
            switch (input.Length == 0 ? 0 : input[0] % Kinds)
            {
                case 0:
                    Read(folder, rest);
                    break;
                case 1:
                    Read(folder, Sealed(rest));
                    break;
                default:
                    ReadPoints(folder, rest);
                    break;
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>
    /// A delta with sound hashes: eight bytes an entry say extent, stored bytes, whether its hash is that of what it holds, and with what
    /// it is filled.
    /// </summary>
    internal static byte[] Sealed(ReadOnlySpan<byte> input)
    {
        byte[] header = new DeltaHeader
        {
            Disk = "disk0",
            DiskBytes = 512 * (1 + (ulong)(input.Length > 0 ? input[0] : 0) * 100),
            Owner = new Guid(1, 2, 3, new byte[8]),
            Point = new Guid(4, 5, 6, new byte[8]),
        }.Encode();
        using MemoryStream file = new(), table = new();
        file.Write(header);
        for (int at = 1; at + 8 <= input.Length && table.Length < 64 * DeltaFormat.EntryBytes; at += 8)
        {
            ReadOnlySpan<byte> say = input.Slice(at, 8);
            int stored = say[1] switch { 0 => 0, 1 => DeltaFormat.ExtentBytes, _ => BinaryPrimitives.ReadUInt16LittleEndian(say[2..]) };
            byte[] content = new byte[stored];
            content.AsSpan().Fill(say[4]);
            input[at..Math.Min(input.Length, at + Math.Min(stored, 64))].CopyTo(content);
            byte[] entry = new byte[DeltaFormat.EntryBytes];
            BinaryPrimitives.WriteUInt32LittleEndian(entry, say[5] == 255 ? uint.MaxValue : say[0]);
            BinaryPrimitives.WriteUInt32LittleEndian(entry.AsSpan(4), say[6] == 255 ? uint.MaxValue : (uint)stored);
            (stored == 0 && say[7] % 2 == 0 ? DeltaFormat.ZeroLeaf : SHA256.HashData(content)).CopyTo(entry, 8);
            table.Write(entry);
            file.Write(content);
        }

        DeltaSeal seal = new()
        {
            Entries = (ulong)table.Length / DeltaFormat.EntryBytes,
            TableOffset = (ulong)file.Length,
            TableHash = SHA256.HashData(table.ToArray()),
            Root = new byte[DeltaFormat.HashBytes],
        };
        file.Write(table.ToArray());
        file.Write(seal.Encode(header));
        return file.ToArray();
    }

    private static void Read(string folder, ReadOnlySpan<byte> bytes)
    {
        string path = Path.Combine(folder, "disk0.delta");
        File.WriteAllBytes(path, bytes);
        byte[] content = new byte[DeltaFormat.ExtentBytes];
        try
        {
            using DeltaReader delta = DeltaReader.Open(path);
            DeltaCursor cursor = delta.Begin();
            ulong stored = 0;
            while (cursor.MoveNext())
            {
                stored += cursor.Current.Stored;
                delta.Read(cursor.Current, content);
                if (!SHA256.HashData(content).AsSpan().SequenceEqual(cursor.Current.Leaf.Span))
                {
                    throw new InvalidOperationException("an extent was read that its hash is not of");
                }
            }

            if (stored + (delta.Seal.Entries * DeltaFormat.EntryBytes) + DeltaFormat.HeaderBytes + DeltaFormat.SealBytes != delta.FileBytes)
            {
                throw new InvalidOperationException("a file has bytes that nothing tells of");
            }
        }
        catch (BlockException refused) when (refused.Message.Length is > 0 and < 500 && refused.Path == path)
        {
        }
    }

    private static void ReadPoints(string folder, ReadOnlySpan<byte> text)
    {
        string point = Directory.CreateDirectory(Path.Combine(folder, "000001")).FullName;
        File.WriteAllBytes(Path.Combine(point, "point.json"), text);
        StoredPoint read = BackupFolder.Open(folder).Points.Single();
        if ((read.Point is null) != (read.Problem is { Length: > 0 and < 1000 })
            || read.Point?.Disks.Any(disk => disk.File.Contains('/', StringComparison.Ordinal) || disk.File.StartsWith('.')) == true)
        {
            throw new InvalidOperationException($"a point is {read}");
        }
    }
}
