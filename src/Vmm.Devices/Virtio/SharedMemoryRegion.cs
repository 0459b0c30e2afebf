using Vmm.Devices.Pci;
using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>A shared memory region of a device (virtio 1.2 section 2.10): host memory that its driver reaches in a BAR.</summary>
/// <param name="id">Number by which the driver asks for it; what it means is the device type's affair.</param>
/// <param name="memory">The memory. The device owns it, and unmaps it no earlier than in its Dispose.</param>
public sealed class SharedMemoryRegion(byte id, HostMapping memory)
{
    private ulong _address;

    /// <summary>Number by which the driver asks for it.</summary>
    public byte Id => id;

    /// <summary>The memory.</summary>
    public HostMapping Memory => memory;

    /// <summary>Where the guest reaches it; null while it does not. Any thread.</summary>
    public GuestAddress? Address => Volatile.Read(ref _address) is not 0 and ulong at ? new GuestAddress(at) : null;

    /// <summary>The BAR moved.</summary>
    internal void Move(GuestAddress? at) => Volatile.Write(ref _address, at?.Value ?? 0);
}
