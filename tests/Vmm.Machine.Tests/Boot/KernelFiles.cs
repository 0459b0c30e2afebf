using System.Buffers.Binary;

namespace Vmm.Machine.Tests.Boot;

/// <summary>Builds kernel files field by field from the specifications.</summary>
internal static class KernelFiles
{
    public const ulong Mib = 1 << 20;

    /// <summary>A bzImage of protocol 2.15: 3 setup sectors, then <paramref name="payload"/>.</summary>
    public static byte[] BzImage(byte[] payload, ulong preferred = 0x100_0000, uint initSize = 0x20_0000, bool relocatable = true)
    {
        byte[] file = new byte[(4 * 512) + payload.Length];
        file[0x1F1] = 3;
        Put32(file, 0x1F4, (uint)(payload.Length / 16));
        file[0x1FE] = 0x55;
        file[0x1FF] = 0xAA;
        file[0x200] = 0xEB;
        file[0x201] = 0x6C - 2;
        "HdrS"u8.CopyTo(file.AsSpan(0x202));
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(0x206), 0x020F);
        file[0x211] = 0x81;
        Put32(file, 0x214, 0x10_0000);
        Put32(file, 0x22C, 0x7FFF_FFFF);
        Put32(file, 0x230, 0x20_0000);
        file[0x234] = relocatable ? (byte)1 : (byte)0;
        file[0x235] = 21;
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(0x236), 0x7F);
        Put32(file, 0x238, 255);
        Put64(file, 0x258, preferred);
        Put32(file, 0x260, initSize);
        payload.CopyTo(file.AsSpan(4 * 512));
        return file;
    }

    /// <summary>An ELF64 with one load segment, and a PVH note when asked.</summary>
    public static byte[] Elf(byte[] code, ulong address = 0x100_0000, ulong memorySize = 0x4000, uint? pvhEntry = null)
    {
        int headers = pvhEntry is null ? 1 : 2;
        int noteAt = 64 + (headers * 56);
        int codeAt = noteAt + (pvhEntry is null ? 0 : 40);
        byte[] file = new byte[codeAt + code.Length];
        new byte[] { 0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1 }.CopyTo(file, 0);
        Put16(file, 16, 2);
        Put16(file, 18, 62);
        Put32(file, 20, 1);
        Put64(file, 24, address);
        Put64(file, 32, 64);
        Put16(file, 52, 64);
        Put16(file, 54, 56);
        Put16(file, 56, (ushort)headers);
        ProgramHeader(file, 64, 1, (ulong)codeAt, address, (ulong)code.Length, memorySize, 4096);
        if (pvhEntry is { } entry)
        {
            ProgramHeader(file, 120, 4, (ulong)noteAt, 0, 40, 40, 4);
            // A foreign note first: the reader has to step over it.
            Put32(file, noteAt, 4);
            Put32(file, noteAt + 4, 4);
            Put32(file, noteAt + 8, 1);
            "GNU\0"u8.CopyTo(file.AsSpan(noteAt + 12));
            Put32(file, noteAt + 20, 4);
            Put32(file, noteAt + 24, 4);
            Put32(file, noteAt + 28, 18);
            "Xen\0"u8.CopyTo(file.AsSpan(noteAt + 32));
            Put32(file, noteAt + 36, entry);
        }

        code.CopyTo(file, codeAt);
        return file;
    }

    public static byte[] Pattern(int length)
    {
        byte[] bytes = new byte[length];
        new Random(7).NextBytes(bytes);
        return bytes;
    }

    public static void Put16(byte[] file, int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(at), value);

    public static void Put32(byte[] file, int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);

    public static void Put64(byte[] file, int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(at), value);

    private static void ProgramHeader(
        byte[] file, int at, uint type, ulong offset, ulong address, ulong fileSize, ulong memorySize, ulong align)
    {
        Put32(file, at, type);
        Put64(file, at + 8, offset);
        Put64(file, at + 16, address);
        Put64(file, at + 24, address);
        Put64(file, at + 32, fileSize);
        Put64(file, at + 40, memorySize);
        Put64(file, at + 48, align);
    }
}
