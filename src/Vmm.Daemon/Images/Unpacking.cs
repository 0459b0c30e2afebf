using System.IO.Compression;
using ZstdSharp;

namespace Vmm.Daemon.Images;

/// <summary>
/// Which packed files are unpacked, and by what. The end of the name decides; a packed file that is not named so is refused, since its
/// bytes would become somebody's disk.
/// </summary>
internal static class Unpacking
{
    private static readonly (string Ending, byte[] Magic)[] s_kinds =
    [
        (".xz", [0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0]),
        (".gz", [0x1F, 0x8B]),
        (".zst", [0x28, 0xB5, 0x2F, 0xFD]),
        (".bz2", [(byte)'B', (byte)'Z', (byte)'h']),
    ];

    /// <summary>The packing that a file's name says, <c>.xz</c> say; null: none.</summary>
    internal static string? OfName(string path)
    {
        foreach ((string ending, _) in s_kinds)
        {
            if (path.EndsWith(ending, StringComparison.OrdinalIgnoreCase))
            {
                return ending;
            }
        }

        return null;
    }

    /// <summary>The packing that the first bytes of a file look like; null: none.</summary>
    internal static string? OfContent(ReadOnlySpan<byte> start)
    {
        foreach ((string ending, byte[] magic) in s_kinds)
        {
            if (start.StartsWith(magic))
            {
                return ending;
            }
        }

        return null;
    }

    /// <summary>What is in a packed file.</summary>
    /// <param name="packing">As <see cref="OfName"/> says it.</param>
    /// <param name="packed">The file; it stays the caller's.</param>
    /// <exception cref="InvalidDataException">What unpacks it is missing.</exception>
    internal static Stream Open(string packing, Stream packed) => packing switch
    {
        ".gz" => new GZipStream(packed, CompressionMode.Decompress, leaveOpen: true),
        ".zst" => new DecompressionStream(packed, leaveOpen: true),
        ".xz" => new ToolStream("/usr/bin/xz", ["--decompress", "--stdout", "--memlimit-decompress=1GiB"], "xz-utils", packed),
        _ => new ToolStream("/usr/bin/bzip2", ["--decompress", "--stdout"], "bzip2", packed),
    };
}
