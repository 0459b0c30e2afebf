using Tmds.Linux;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>A range of guest memory as vhost takes it, struct vhost_memory_region of linux/vhost.h.</summary>
/// <param name="GuestAddress">First guest physical address.</param>
/// <param name="Length">Bytes.</param>
/// <param name="HostAddress">Where it is mapped in this process.</param>
/// <param name="Reserved">0.</param>
public readonly record struct VhostRegion(ulong GuestAddress, ulong Length, ulong HostAddress, ulong Reserved = 0);

/// <summary>A ring to hand over.</summary>
/// <param name="Size">Descriptors.</param>
/// <param name="Next">Index of the next available entry.</param>
/// <param name="Descriptors">Descriptor table, an address of this process, as the other two.</param>
/// <param name="Driver">Available ring.</param>
/// <param name="Device">Used ring.</param>
/// <param name="Kick">Rung by the guest.</param>
/// <param name="Call">Rung by the kernel for an interrupt.</param>
/// <param name="Error">Rung by the kernel when the driver broke the ring.</param>
public readonly record struct VhostRing(
    int Size, ushort Next, nint Descriptors, nint Driver, nint Device, EventFd Kick, EventFd Call, EventFd Error);

/// <summary>
/// One queue pair of vhost-net: the kernel moves frames between a tap's queue and the two rings of a guest (linux/vhost.h). Ring 0
/// receives, ring 1 sends. One thread at a time. A migration will ask for the log of the pages that the kernel writes (VHOST_F_LOG_ALL).
/// </summary>
public sealed class VhostNet : IDisposable
{
    /// <summary>The device.</summary>
    public const string DevicePath = "/dev/vhost-net";

    /// <summary>
    /// What a thread asks for that sets rings up, starts and stops them: a device's own, or the vCPU thread that writes the register.
    /// </summary>
    public static SyscallNeeds Needs { get; } = new([], VhostCalls.RingRequests);

    /// <summary>What a thread asks for that changes RAM.</summary>
    public static SyscallNeeds MemoryNeeds { get; } = new([], VhostCalls.MemoryRequests);

    /// <summary>What the device is asked when it comes.</summary>
    public static SyscallNeeds OpenNeeds { get; } = new([], VhostCalls.OpenRequests);

    private readonly FileDescriptorHandle _vhost;

    private VhostNet(FileDescriptorHandle vhost, ulong features) => (_vhost, Features) = (vhost, features);

    /// <summary>Feature bits that it knows (virtio's, and its own).</summary>
    public ulong Features { get; }

    /// <summary>Opens the device, for this process or to pass on.</summary>
    /// <exception cref="KernelException">It is not there, or may not be opened.</exception>
    public static FileDescriptorHandle OpenDescriptor()
    {
        int fd = FileCalls.Open(DevicePath, LibC.O_RDWR);
        return fd >= 0 ? new FileDescriptorHandle(fd) : throw new KernelException("open " + DevicePath, -fd);
    }

    /// <summary>
    /// Takes ownership of a descriptor; this process's memory is what addresses mean from here on, and a thread of the kernel belongs to
    /// it.
    /// </summary>
    /// <exception cref="KernelException">It is no such descriptor, or has an owner already.</exception>
    public static VhostNet FromDescriptor(FileDescriptorHandle descriptor)
    {
        try
        {
            KernelException.ThrowIfError(VhostCalls.Own(descriptor), "VHOST_SET_OWNER");
            KernelException.ThrowIfError(VhostCalls.Features(descriptor, out ulong features), "VHOST_GET_FEATURES");
            return new VhostNet(descriptor, features);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>The features that the driver accepted; while no ring is served.</summary>
    /// <exception cref="KernelException">One of them is unknown.</exception>
    public void SetFeatures(ulong features) =>
        KernelException.ThrowIfError(VhostCalls.Accept(_vhost, features & Features), "VHOST_SET_FEATURES");

    /// <summary>Guest memory from now on; also while rings are served: when this returns nothing else is touched any more.</summary>
    /// <exception cref="KernelException">Too many ranges (64 by default), or no memory.</exception>
    public void SetMemory(ReadOnlySpan<VhostRegion> regions) =>
        KernelException.ThrowIfError(VhostCalls.SetMemory(_vhost, regions), "VHOST_SET_MEM_TABLE");

    /// <summary>Says where a ring is; while it is not served.</summary>
    /// <exception cref="KernelException">The kernel refused it.</exception>
    public void SetRing(int index, in VhostRing ring) =>
        KernelException.ThrowIfError(VhostCalls.SetRing(_vhost, index, ring), "VHOST_SET_VRING");

    /// <summary>The kernel serves a ring from here on.</summary>
    /// <exception cref="KernelException">The kernel refused it, or the tap.</exception>
    public void Serve(int index, FileDescriptorHandle tap) =>
        KernelException.ThrowIfError(VhostCalls.Serve(_vhost, index, tap), "VHOST_NET_SET_BACKEND");

    /// <summary>Takes a ring back: when this returns nothing of it is in flight.</summary>
    /// <returns>Index of the next available entry.</returns>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public ushort Stop(int index)
    {
        KernelException.ThrowIfError(VhostCalls.Serve(_vhost, index, null), "VHOST_NET_SET_BACKEND");
        KernelException.ThrowIfError(VhostCalls.Base(_vhost, index, out int next), "VHOST_GET_VRING_BASE");
        return (ushort)next;
    }

    /// <inheritdoc/>
    public void Dispose() => _vhost.Dispose();
}
