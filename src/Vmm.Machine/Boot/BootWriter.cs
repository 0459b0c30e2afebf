using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Machine.Boot;

/// <summary>Writes into guest RAM across region borders (a kernel or initrd may span vnodes).</summary>
internal static class BootWriter
{
    /// <summary>Copies part of a file into RAM without a buffer between.</summary>
    internal static void CopyFile(GuestMemory memory, BootFile file, ulong offset, ulong length, ulong address, string field)
    {
        PageLease lease = new(1);
        foreach (ref readonly GuestRegion region in memory.RegionSpan)
        {
            ulong start = Math.Max(address, region.Start.Value);
            ulong end = Math.Min(address + length, region.Start.Value + region.Length);
            while (start < end)
            {
                int chunk = (int)Math.Min(end - start, 1 << 30);
                GuestRange range = new(new(start), (uint)chunk);
                if (memory.Dma.TryAcquire(range, DmaAccess.Write, lease, NoPager.Instance) != Acquired.Ready)
                {
                    throw new BootException(file.Name, field, null, $"0x{start:x} is not guest RAM");
                }

                file.Read(offset + (start - address), lease.Bytes(0), field);
                lease.Release();
                start += (ulong)chunk;
            }
        }
    }

    /// <summary>Loader tables in the first MiB, which <see cref="BootLoader"/> has checked to be RAM.</summary>
    internal static void Write(GuestMemory memory, ulong address, ReadOnlySpan<byte> bytes)
    {
        if (!memory.TryWrite(new GuestAddress(address), bytes))
        {
            throw new InvalidOperationException($"loader table at 0x{address:x} is outside RAM");
        }
    }

    internal static void Put16(Span<byte> at, int offset, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(at[offset..], value);

    internal static void Put32(Span<byte> at, int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(at[offset..], value);

    internal static void Put64(Span<byte> at, int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(at[offset..], value);

    /// <summary>Before the guest runs every page is there.</summary>
    private sealed class NoPager : IPageWaiter
    {
        public static NoPager Instance { get; } = new();

        public void PagesReady(PageLease lease)
        {
        }
    }
}
