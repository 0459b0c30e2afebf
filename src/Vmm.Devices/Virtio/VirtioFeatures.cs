namespace Vmm.Devices.Virtio;

/// <summary>Feature bits that belong to the ring and the transport (virtio 1.2 section 6), as masks.</summary>
public static class VirtioFeatures
{
    /// <summary>VIRTIO_F_INDIRECT_DESC.</summary>
    public const ulong IndirectDescriptors = 1UL << 28;

    /// <summary>VIRTIO_F_EVENT_IDX.</summary>
    public const ulong EventIndex = 1UL << 29;

    /// <summary>VIRTIO_F_VERSION_1; a driver that does not accept it is refused (no legacy devices here).</summary>
    public const ulong Version1 = 1UL << 32;

    /// <summary>What every transport of ours offers on top of the device's own bits.</summary>
    public const ulong Transport = IndirectDescriptors | EventIndex | Version1;
}
