using Vmm.Devices.Bus;
using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>
/// The bus as BARs see it, with the places of those that were taken from the guest without its consent. There registers read as zeros
/// instead of all ones: a virtio driver that resets its device waits until the status reads zero (virtio 1.2, 4.1.4.3.2), and Linux' waits
/// for ever, and with it the thread of its slot, or of all slots. A BAR that comes to such a place takes it. Under the lock of
/// <see cref="PciHostBridge"/>.
/// </summary>
/// <param name="mmio">The bus.</param>
internal sealed class VanishedBars(IMmioMap mmio) : IMmioMap
{
    /// <summary>Places that are remembered; the oldest is forgotten first.</summary>
    internal const int Most = 64;

    private static readonly Zeros s_zeros = new();
    private readonly Queue<(ulong Start, ulong Length)> _places = new();

    /// <inheritdoc/>
    public bool TryMap(GuestAddress start, ulong length, IBusDevice device, string name)
    {
        for (int left = _places.Count; left > 0; left--)
        {
            (ulong Start, ulong Length) place = _places.Dequeue();
            if (start.Value - place.Start < place.Length || place.Start - start.Value < length) // they overlap, whichever is first
            {
                mmio.Unmap(new GuestAddress(place.Start));
            }
            else
            {
                _places.Enqueue(place);
            }
        }

        return mmio.TryMap(start, length, device, name);
    }

    /// <inheritdoc/>
    public void Unmap(GuestAddress start) => mmio.Unmap(start);

    /// <summary>A BAR that was there and is unmapped was taken from the guest.</summary>
    internal void Add(GuestAddress start, ulong length)
    {
        if (_places.Count == Most)
        {
            mmio.Unmap(new GuestAddress(_places.Dequeue().Start));
        }

        if (TryMap(start, length, s_zeros, "a device that was taken"))
        {
            _places.Enqueue((start.Value, length));
        }
    }

    private sealed class Zeros : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => data.Clear();

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            // Nobody is there.
        }
    }
}
