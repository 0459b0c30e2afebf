using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>struct kvm_cpuid2: a count, then that many leaves.</summary>
internal static class CpuidBuffer
{
    private static readonly int HeaderSize = Unsafe.SizeOf<KvmCpuidHeader>();

    internal static byte[] Create(int room)
    {
        byte[] buffer = new byte[HeaderSize + (room * Unsafe.SizeOf<KvmCpuidEntry>())];
        MemoryMarshal.Write(buffer, new KvmCpuidHeader { Nent = (uint)room });
        return buffer;
    }

    internal static byte[] Create(ReadOnlySpan<KvmCpuidEntry> entries)
    {
        byte[] buffer = Create(entries.Length);
        MemoryMarshal.AsBytes(entries).CopyTo(buffer.AsSpan(HeaderSize));
        return buffer;
    }

    internal static KvmCpuidEntry[] Entries(byte[] buffer)
    {
        int count = (int)MemoryMarshal.Read<KvmCpuidHeader>(buffer).Nent;
        return MemoryMarshal.Cast<byte, KvmCpuidEntry>(buffer.AsSpan(HeaderSize))[..count].ToArray();
    }
}
