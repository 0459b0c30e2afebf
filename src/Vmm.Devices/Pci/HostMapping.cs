using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>
/// Memory of this process that a BAR shows to the guest. It belongs to the device, which keeps it mapped until the function is disposed: it
/// is off the bus by then.
/// </summary>
public sealed class HostMapping
{
    /// <param name="address">First byte, at a page border.</param>
    /// <param name="length">Bytes, whole pages.</param>
    /// <param name="isReadOnly">Guest writes have no effect.</param>
    /// <exception cref="ArgumentException">Not whole pages.</exception>
    public HostMapping(nint address, ulong length, bool isReadOnly = false)
    {
        const ulong PageMask = ByteSize.BytesPerPage - 1;
        if (address == 0 || length == 0 || length > 1UL << 52 || (((ulong)address | length) & PageMask) != 0)
        {
            throw new ArgumentException(
                $"0x{length:x} bytes at 0x{address:x} are not whole pages: a BAR can only show whole pages", nameof(address));
        }

        Address = address;
        Length = length;
        IsReadOnly = isReadOnly;
    }

    /// <summary>Bytes.</summary>
    public ulong Length { get; }

    /// <summary>Guest writes have no effect.</summary>
    public bool IsReadOnly { get; }

    /// <summary>First byte.</summary>
    internal nint Address { get; }
}

/// <summary>
/// Where memory behind BARs becomes memory of the guest. Calls come one at a time, on a vCPU's thread under the lock of
/// <see cref="PciHostBridge"/> or before the guest starts.
/// </summary>
public interface IBarMappings
{
    /// <summary>
    /// Makes host memory appear at a guest address. False when it cannot be there, because the guest put the BAR where none may be, or the
    /// kernel refused.
    /// </summary>
    /// <param name="start">First guest address.</param>
    /// <param name="hostAddress">First byte of the memory, at a page border.</param>
    /// <param name="length">Bytes, whole pages.</param>
    /// <param name="isReadOnly">Guest writes have no effect.</param>
    bool TryMap(GuestAddress start, nint hostAddress, ulong length, bool isReadOnly);

    /// <summary>Undoes <see cref="TryMap"/>: the guest does not reach the memory from the return on.</summary>
    void Unmap(GuestAddress start);
}
