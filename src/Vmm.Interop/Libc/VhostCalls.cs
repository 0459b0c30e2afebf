using System.Runtime.InteropServices;

namespace Vmm.Interop.Libc;

/// <summary>struct vhost_vring_state and struct vhost_vring_file of linux/vhost.h: a ring, and a number or descriptor.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct VhostRingValue(uint Index, int Value);

/// <summary>struct vhost_vring_addr of linux/vhost.h.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct VhostRingAddress(uint Index, uint Flags, ulong Descriptors, ulong Used, ulong Available, ulong Log);

/// <summary>vhost-net (linux/vhost.h): frames between a tap and the rings of a guest, moved by the kernel. Answers: 0, or -errno.</summary>
internal static unsafe class VhostCalls
{
    private const uint SetOwner = 0xaf01, GetFeatures = 0x8008af00, SetFeatures = 0x4008af00, SetMemoryTable = 0x4008af03;
    private const uint SetRingSize = 0x4008af10, SetRingAddress = 0x4028af11, SetRingBase = 0x4008af12, GetRingBase = 0xc008af12;
    private const uint SetRingKick = 0x4008af20, SetRingCall = 0x4008af21, SetRingError = 0x4008af22, SetBackend = 0x4008af30;

    /// <summary>Requests that set rings up, start and stop them.</summary>
    internal static readonly uint[] RingRequests =
    [
        SetFeatures, SetMemoryTable, SetRingSize, SetRingAddress, SetRingBase, GetRingBase, SetRingKick, SetRingCall, SetRingError,
        SetBackend,
    ];

    /// <summary>Requests to a device that was just opened.</summary>
    internal static readonly uint[] OpenRequests = [SetOwner, GetFeatures];

    /// <summary>Requests when RAM comes or goes.</summary>
    internal static readonly uint[] MemoryRequests = [SetMemoryTable];

    /// <summary>The calling process's memory is what addresses mean from here on; starts the kernel's worker.</summary>
    internal static int Own(FileDescriptorHandle vhost)
    {
        using DescriptorLease fd = new(vhost);
        return FileCalls.Ioctl(fd.Number, SetOwner, null);
    }

    internal static int Features(FileDescriptorHandle vhost, out ulong features)
    {
        using DescriptorLease fd = new(vhost);
        ulong known = 0;
        int answer = FileCalls.Ioctl(fd.Number, GetFeatures, &known);
        features = known;
        return answer;
    }

    internal static int Accept(FileDescriptorHandle vhost, ulong features)
    {
        using DescriptorLease fd = new(vhost);
        return FileCalls.Ioctl(fd.Number, SetFeatures, &features);
    }

    /// <summary>struct vhost_memory: the number of regions, padding, the regions.</summary>
    internal static int SetMemory(FileDescriptorHandle vhost, ReadOnlySpan<VhostRegion> regions)
    {
        using DescriptorLease fd = new(vhost);
        ulong[] table = new ulong[1 + (regions.Length * sizeof(VhostRegion) / sizeof(ulong))];
        table[0] = (uint)regions.Length;
        MemoryMarshal.Cast<VhostRegion, ulong>(regions).CopyTo(table.AsSpan(1));
        fixed (ulong* at = table)
        {
            return FileCalls.Ioctl(fd.Number, SetMemoryTable, at);
        }
    }

    internal static int SetRing(FileDescriptorHandle vhost, int index, in VhostRing ring)
    {
        using DescriptorLease fd = new(vhost), kick = new(ring.Kick.Handle), call = new(ring.Call.Handle), error = new(ring.Error.Handle);
        VhostRingAddress address = new((uint)index, 0, (ulong)ring.Descriptors, (ulong)ring.Device, (ulong)ring.Driver, 0);
        int answer = Set(fd.Number, SetRingSize, index, ring.Size);
        answer = answer < 0 ? answer : Set(fd.Number, SetRingBase, index, ring.Next);
        answer = answer < 0 ? answer : FileCalls.Ioctl(fd.Number, SetRingAddress, &address);
        answer = answer < 0 ? answer : Set(fd.Number, SetRingKick, index, kick.Number);
        answer = answer < 0 ? answer : Set(fd.Number, SetRingCall, index, call.Number);
        return answer < 0 ? answer : Set(fd.Number, SetRingError, index, error.Number);
    }

    /// <summary>The ring is served from here on; without a tap no longer, and nothing of it is in flight when this returns.</summary>
    internal static int Serve(FileDescriptorHandle vhost, int index, FileDescriptorHandle? tap)
    {
        using DescriptorLease fd = new(vhost);
        if (tap is null)
        {
            return Set(fd.Number, SetBackend, index, -1);
        }

        using DescriptorLease tapFd = new(tap);
        return Set(fd.Number, SetBackend, index, tapFd.Number);
    }

    /// <summary>Index of the next available entry.</summary>
    internal static int Base(FileDescriptorHandle vhost, int index, out int next)
    {
        using DescriptorLease fd = new(vhost);
        VhostRingValue value = new((uint)index, 0);
        int answer = FileCalls.Ioctl(fd.Number, GetRingBase, &value);
        next = value.Value;
        return answer;
    }

    private static int Set(int fd, uint request, int index, int value)
    {
        VhostRingValue pair = new((uint)index, value);
        return FileCalls.Ioctl(fd, request, &pair);
    }
}
