using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// A queue pair that the host's kernel can serve by itself (vhost-net). Ring 0 receives, ring 1 sends. One thread at a time.
/// </summary>
public interface IKernelPair
{
    /// <summary>Feature bits the kernel knows.</summary>
    ulong Features { get; }

    /// <summary>What the driver accepted; while no ring is served.</summary>
    /// <exception cref="KernelException">Refused.</exception>
    void SetFeatures(ulong features);

    /// <summary>Guest memory from now on, also while rings are served.</summary>
    /// <exception cref="KernelException">Refused.</exception>
    void SetMemory(ReadOnlySpan<VhostRegion> regions);

    /// <summary>Where a ring is; while it is not served.</summary>
    /// <exception cref="KernelException">Refused.</exception>
    void SetRing(int index, in VhostRing ring);

    /// <summary>The kernel serves a ring from here on.</summary>
    /// <exception cref="KernelException">Refused.</exception>
    void Serve(int index);

    /// <summary>Takes a ring back; answers the index of its next available entry. Nothing of it is in flight afterwards.</summary>
    /// <exception cref="KernelException">Refused.</exception>
    ushort Stop(int index);
}
