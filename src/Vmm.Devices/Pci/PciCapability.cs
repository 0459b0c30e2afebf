namespace Vmm.Devices.Pci;

/// <summary>A capability: fields that follow each other, at offsets from its start (PCI Express base spec 7.5.3).</summary>
public sealed class PciCapability
{
    private readonly PciConfigSpace _config;
    private readonly PciField _next;

    internal PciCapability(PciConfigSpace config, byte id, int offset, int length)
    {
        _config = config;
        Offset = offset;
        Length = length;
        config.Add(new PciField(offset, 1, id));
        _next = config.Add(new PciField(offset + 1, 1, 0));
    }

    /// <summary>First byte in the configuration space.</summary>
    public int Offset { get; }

    /// <summary>Bytes, with identifier and pointer.</summary>
    public int Length { get; }

    /// <summary>Adds a field that software reads only, unless masks say otherwise.</summary>
    /// <param name="at">Offset from the start of the capability.</param>
    /// <param name="width">Bytes: 1, 2 or 4.</param>
    /// <param name="value">What it holds after reset.</param>
    /// <param name="writable">Bits that take what software writes.</param>
    /// <param name="clearedByOnes">Bits that software clears by writing ones.</param>
    /// <exception cref="ArgumentException">It is not aligned, covers another one, or is beyond the capability.</exception>
    public PciField Add(int at, int width, uint value, uint writable = 0, uint clearedByOnes = 0)
    {
        if (at < 2 || at > Length - width)
        {
            throw new ArgumentException($"a field at {at} is outside a capability of {Length} bytes", nameof(at));
        }

        return _config.Add(new PciField(Offset + at, width, value) { Writable = writable, ClearedByOnes = clearedByOnes });
    }

    /// <summary>What comes after it in the list; 0 ends the list here.</summary>
    internal void SetNext(int offset) => _next.SetFixed((uint)offset);
}
