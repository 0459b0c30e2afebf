namespace Vmm.Devices.Virtio;

/// <summary>The device side of a split virtqueue (virtio 1.2 section 2.7).</summary>
public sealed class Virtqueue
{
}
