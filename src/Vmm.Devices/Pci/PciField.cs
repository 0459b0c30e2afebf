namespace Vmm.Devices.Pci;

/// <summary>
/// One field of a configuration space: where it is, what it holds after reset, which bits software changes, and what else happens then.
/// Under the lock of the configuration.
/// </summary>
/// <param name="offset">First byte, naturally aligned.</param>
/// <param name="width">Bytes: 1, 2 or 4.</param>
/// <param name="reset">Value after reset.</param>
public sealed class PciField(int offset, int width, uint reset)
{
    /// <summary>First byte in the configuration space.</summary>
    public int Offset => offset;

    /// <summary>Bytes: 1, 2 or 4.</summary>
    public int Width => width;

    /// <summary>Value after reset.</summary>
    public uint ResetValue { get; private set; } = reset;

    /// <summary>What it holds. Setting it is the device's affair: masks do not count, and no handler is called.</summary>
    public uint Value { get; set; } = reset;

    /// <summary>Bits that take what software writes.</summary>
    public uint Writable { get; init; }

    /// <summary>Bits that software clears by writing ones (RW1C, PCI Express base spec 7.4).</summary>
    public uint ClearedByOnes { get; init; }

    /// <summary>Bits that software changes one way or the other.</summary>
    internal uint Changeable => Writable | ClearedByOnes;

    /// <summary>Called before software reads any byte of it, to bring <see cref="Value"/> up to date.</summary>
    public Action<PciField>? Reading { get; set; }

    /// <summary>Called after software wrote any byte of it, changed or not. All fields of that access have their values.</summary>
    public Action<PciField>? Written { get; set; }

    /// <summary>Changes what it holds now and after every reset.</summary>
    internal void SetFixed(uint value) => Value = ResetValue = value;

    /// <summary>
    /// As software writes: <paramref name="bits"/> where <paramref name="lanes"/> has ones, in the place that the field's bytes have.
    /// </summary>
    internal void Store(uint bits, uint lanes)
    {
        uint writable = Writable & lanes;
        Value = (Value & ~writable & ~(bits & lanes & ClearedByOnes)) | (bits & writable);
    }
}
