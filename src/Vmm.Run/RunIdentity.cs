using System.Globalization;
using Vmm.Spec;

namespace Vmm.Run;

/// <summary>
/// The UUID of a machine that nobody gave one: the same at every start as long as its name and its first disk are the same, another on
/// another disk. A guest takes its own identity from it (systemd: its machine id).
/// </summary>
internal static class RunIdentity
{
    // FNV-1a of 128 bits: stable over processes and versions, and nothing that has to be loaded.
    private static readonly UInt128 s_basis = new(0x6C62_272E_07BB_0142, 0x62B8_2175_6295_C58D);
    private static readonly UInt128 s_prime = new(0x0000_0000_0100_0000, 0x0000_0000_0000_013B);

    internal static string Of(VmSpec spec)
    {
        if (spec.Disks.Count == 0)
        {
            return Guid.NewGuid().ToString("D"); // nothing of it lasts
        }

        string path = spec.Disks[0].Path;
        UInt128 hash = s_basis;
        hash = Add(hash, spec.Name);
        hash = Add(hash, "\0");
        hash = Add(hash, File.Exists(path) ? Path.GetFullPath(path) : path);
        hash = Add(hash, Made(path));
        Span<byte> bytes = stackalloc byte[16];
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i] = (byte)(hash >> (8 * (15 - i)));
        }

        bytes[6] = (byte)((bytes[6] & 0x0F) | 0x80); // version 8, variant 1 (RFC 9562)
        bytes[8] = (byte)((bytes[8] & 0x3F) | 0x80);
        return new Guid(bytes, bigEndian: true).ToString("D");
    }

    // Two hosts may have a disk of one name, but they did not make it in the same instant.
    private static string Made(string path)
    {
        try
        {
            return File.Exists(path) ? File.GetCreationTimeUtc(path).Ticks.ToString(CultureInfo.InvariantCulture) : "";
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static UInt128 Add(UInt128 hash, string text)
    {
        foreach (char c in text)
        {
            hash = unchecked((hash ^ c) * s_prime);
        }

        return hash;
    }
}
