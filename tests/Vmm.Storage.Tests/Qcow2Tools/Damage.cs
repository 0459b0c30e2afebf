using System.Buffers.Binary;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>Images with something in them, and random damages of their tables.</summary>
internal static class Damage
{
    /// <summary>Makes an image by qemu-img and qemu-io: data, zeros, a compressed part, a snapshot; or an overlay.</summary>
    internal static void MakeImage(string path, int kind)
    {
        string options = kind switch
        {
            0 => "cluster_size=64k",
            1 => "cluster_size=4k,refcount_bits=8",
            2 => "cluster_size=64k,extended_l2=on",
            3 => "cluster_size=512,refcount_bits=1",
            _ => "cluster_size=4k,refcount_bits=64,compat=v3",
        };
        QemuImg.Do("create", "-f", "qcow2", "-o", options, path, "8M");
        Write(path, "write -P 1 0 300k", "write -P 2 1M 200k", "write -z 2M 256k", "write -P 3 7M 64k");
        if (kind is 1 or 4)
        {
            Write(path, "write -c -P 4 3M 64k", "write -c -P 5 3200k 64k");
            QemuImg.Do("snapshot", "-c", "one", path);
            Write(path, "write -P 6 0 100k", "write -P 7 4M 64k");
        }

        if (kind == 0)
        {
            QemuImg.Do("bitmap", "--add", "-g", "64k", path, "changes");
        }
    }

    /// <summary>Changes something in a table, or a few things; says what.</summary>
    internal static string Apply(string path, Random random)
    {
        byte[] bytes = File.ReadAllBytes(path);
        Qcow2Header header = Qcow2Header.Parse(bytes, path);
        List<string> said = [];
        for (int i = random.Next(3); i >= 0; i--)
        {
            (string what, ulong at, int size) = Place(bytes, header, random);
            int bit = random.Next(size * 8);
            switch (random.Next(3))
            {
                case 0:
                    bytes[(int)at + (bit / 8)] ^= (byte)(1 << (bit % 8));
                    break;
                case 1:
                    bytes.AsSpan((int)at, size).Clear();
                    break;
                default:
                    bytes[(int)at + (bit / 8)] = (byte)random.Next(256);
                    break;
            }

            said.Add($"{what} at {at}");
        }

        File.WriteAllBytes(path, bytes);
        return string.Join(", ", said);
    }

    private static (string What, ulong At, int Size) Place(byte[] bytes, Qcow2Header header, Random random)
    {
        Qcow2Geometry image = header.Geometry;
        switch (random.Next(5))
        {
            case 0:
                return ("L1", header.L1Offset + ((ulong)random.Next((int)Math.Min(header.L1Size, 16)) * 8), 8);
            case 1:
                return ("refcount table", header.RefcountTableOffset + ((ulong)random.Next(3) * 8), 8);
            case 2:
                ulong block = First(bytes, header.RefcountTableOffset, 64, 0x00ff_ffff_ffff_fe00, random);
                ulong used = (ulong)bytes.Length >> image.ClusterBits << image.RefcountOrder >> 3;
                return ("refcount", block + (ulong)random.Next((int)Math.Clamp(used + 1, 1, image.ClusterSize)), 1);
            default:
                ulong table = First(bytes, header.L1Offset, (int)header.L1Size, 0x00ff_ffff_ffff_fe00, random);
                int entries = 1 << image.L2Bits;
                return ("L2", table + ((ulong)random.Next(Math.Min(entries, 128)) * (uint)image.L2EntrySize), image.L2EntrySize);
        }
    }

    private static ulong First(byte[] bytes, ulong table, int entries, ulong mask, Random random)
    {
        List<ulong> found = [];
        for (int i = 0; i < entries; i++)
        {
            ulong at = BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan((int)table + (i * 8))) & mask;
            if (at != 0 && at + 65536 < (ulong)bytes.Length)
            {
                found.Add(at);
            }
        }

        return found.Count == 0 ? table : found[random.Next(found.Count)];
    }

    /// <summary>Commands of qemu-io on a qcow2 image.</summary>
    internal static void Write(string path, params string[] commands) => WriteAs("qcow2", path, commands);

    /// <summary>The same on an image of a format.</summary>
    internal static void WriteAs(string format, string path, params string[] commands)
    {
        List<string> arguments = ["-f", format];
        foreach (string command in commands)
        {
            arguments.AddRange(["-c", command]);
        }

        using System.Diagnostics.Process process = System.Diagnostics.Process.Start(
            new System.Diagnostics.ProcessStartInfo("/usr/bin/qemu-io", [.. arguments, path])
            {
                RedirectStandardOutput = true,
                UseShellExecute = false,
            })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, output);
    }
}
