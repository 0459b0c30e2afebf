using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Testing;

/// <summary>What a guest's own processor does with its memory: no lease, no marks. For tests that play the driver.</summary>
public static class GuestMemoryAccess
{
    [ThreadStatic]
    private static PageLease? t_lease;

    /// <summary>Where a range lies in this process; false when it is not RAM, or not contiguous here.</summary>
    public static bool TryGetHostAddress(this GuestMemory memory, GuestAddress at, ulong length, out nint address)
    {
        address = 0;
        PageLease lease = t_lease ??= new PageLease(1); // one for each thread: tests count what devices allocate
        ulong first = Math.Min(length, uint.MaxValue);
        lease.Name([new GuestRange(at, (uint)first)]);
        if (!memory.Contains(at, length) || !lease.TryHold(memory.Ram, DmaAccess.Read)) // past a FakePager: a processor's own access
        {
            return false;
        }

        address = lease.Vectors[0].Base;
        lease.Release();
        return true;
    }

    /// <summary>The bytes of a range.</summary>
    public static bool TryGetSpan(this GuestMemory memory, GuestAddress at, int length, out Span<byte> span)
    {
        bool found = memory.TryGetHostAddress(at, (ulong)length, out nint address);
        span = found ? HostSpan.Bytes(address, length) : default;
        return found;
    }

    /// <summary>Acquire-load of a ring index.</summary>
    public static bool TryReadIndex(this GuestMemory memory, GuestAddress at, out ushort value)
    {
        bool found = memory.TryGetSpan(at, sizeof(ushort), out Span<byte> span);
        value = found ? Volatile.Read(ref System.Runtime.InteropServices.MemoryMarshal.AsRef<ushort>(span)) : (ushort)0;
        return found;
    }

    /// <summary>Release-store of a ring index.</summary>
    public static bool TryWriteIndex(this GuestMemory memory, GuestAddress at, ushort value)
    {
        if (!memory.TryGetSpan(at, sizeof(ushort), out Span<byte> span))
        {
            return false;
        }

        Volatile.Write(ref System.Runtime.InteropServices.MemoryMarshal.AsRef<ushort>(span), value);
        return true;
    }
}
