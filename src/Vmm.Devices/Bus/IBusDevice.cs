namespace Vmm.Devices.Bus;

/// <summary>
/// A device on the port or the MMIO bus. Called on vCPU threads, possibly several at once: the thin binding takes the device's lock. Any
/// offset, length (1, 2, 4, 8) and value is legal input; nothing here throws because of what a guest wrote.
/// </summary>
public interface IBusDevice
{
    /// <summary>
    /// Guest read at <paramref name="offset"/> bytes from the device's base; every byte of <paramref name="data"/> is filled.
    /// </summary>
    void Read(ulong offset, Span<byte> data);

    /// <summary>Guest write at <paramref name="offset"/> bytes from the device's base.</summary>
    void Write(ulong offset, ReadOnlySpan<byte> data);
}
