using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Machine.Boot;

/// <summary>Writes into guest RAM across region borders (a kernel or initrd may span vnodes).</summary>
internal static class BootWriter
{
    private static readonly TimeSpan s_pageTime = TimeSpan.FromSeconds(30);
    private const uint MostBytes = 4 << 20; // at once: paged memory is not all resident

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
                int chunk = (int)Math.Min(end - start, MostBytes);
                Acquired answer = Acquire(memory, new GuestRange(new(start), (uint)chunk), lease);
                if (answer != Acquired.Ready)
                {
                    string problem = answer == Acquired.Pending ? "guest memory cannot be paged in" : $"0x{start:x} is not guest RAM";
                    throw new BootException(file.Name, field, null, problem);
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

    // Paged memory is empty at first.
    private static Acquired Acquire(GuestMemory memory, GuestRange range, PageLease lease)
    {
        while (true)
        {
            PageWait wait = new();
            Acquired answer = memory.Dma.TryAcquire(range, DmaAccess.Write, lease, wait);
            if (answer != Acquired.Pending || !wait.Ready.Wait(s_pageTime))
            {
                return answer;
            }
        }
    }

    private sealed class PageWait : IPageWaiter
    {
        public ManualResetEventSlim Ready { get; } = new();

        public void PagesReady(PageLease lease) => Ready.Set();
    }
}
