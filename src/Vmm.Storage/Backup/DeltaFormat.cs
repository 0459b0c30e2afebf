using System.Security.Cryptography;

namespace Vmm.Storage.Backup;

/// <summary>Numbers of a sealed delta (docs/backup-format.md). All integers are little-endian.</summary>
internal static class DeltaFormat
{
    /// <summary>Bytes of an extent: what is stored, hashed and compared as one.</summary>
    internal const int ExtentBytes = 64 * 1024;

    /// <summary>Bytes of the header.</summary>
    internal const int HeaderBytes = 512;

    /// <summary>Bytes of an entry of the table: extent, stored bytes, hash.</summary>
    internal const int EntryBytes = 40;

    /// <summary>Bytes of the seal, the last ones of the file.</summary>
    internal const int SealBytes = 128;

    /// <summary>Bytes of a hash (SHA-256).</summary>
    internal const int HashBytes = 32;

    /// <summary>Most bytes of a disk name.</summary>
    internal const int MostNameBytes = 63;

    /// <summary>Most bytes of a disk; bounds what a false header costs.</summary>
    internal const ulong MostDiskBytes = 1ul << 46;

    /// <summary>The version of the format.</summary>
    internal const uint Version = 1;

    /// <summary>The hash of an extent of zeros.</summary>
    internal static byte[] ZeroLeaf { get; } = SHA256.HashData(new byte[ExtentBytes]);

    /// <summary>Extents of a disk; the last one is filled up with zeros.</summary>
    internal static ulong ExtentsOf(ulong diskBytes) => (diskBytes + ExtentBytes - 1) / ExtentBytes;

    /// <summary>True for a name of a disk that can be the name of a file: letters, digits, dots, dashes and underscores.</summary>
    internal static bool IsName(string? name) => name is { Length: > 0 and <= MostNameBytes } && name[0] != '.'
        && name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '-' or '_' or '.');

    /// <summary>The error for a file that is not what it should be.</summary>
    internal static BlockException Damaged(string path, string what, ulong? extent = null) =>
        new(BlockErrorKind.Damaged, extent is null ? $"backup file {path} is damaged: {what}"
            : $"backup file {path} is damaged at extent {extent} (byte {extent * ExtentBytes} of the disk): {what}")
        {
            Path = path,
            Offset = extent is null ? null : (long)(extent * ExtentBytes),
        };

    /// <summary>The error for a host that fails.</summary>
    internal static BlockException Failed(string path, string what, Exception e) =>
        new(BlockErrorKind.Io, IsFull(e) ? $"backup file {path} {what}: no space left on its file system; make room and do it again"
            : $"backup file {path} {what}: {e.Message}", e)
        {
            Path = path,
            Status = IsFull(e) ? DiskStatus.NoSpace : DiskStatus.IoError,
        };

    // ENOSPC is 28, EDQUOT 122 (errno(3)); .NET has them in the low bits of HResult on Linux.
    private static bool IsFull(Exception e) => e is IOException && (e.HResult & 0xffff) is 28 or 122;
}
