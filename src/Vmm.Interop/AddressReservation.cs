using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// A range of this process's addresses kept for mappings that must lie side by side, so that a range across two of them is one range for
/// the kernel. It must outlive the mappings put into it.
/// </summary>
public sealed class AddressReservation : SafeHandleMinusOneIsInvalid
{
    /// <summary>Reserves addresses; no memory is behind them.</summary>
    /// <param name="length">Bytes, a multiple of 4096.</param>
    /// <param name="alignment">Of the first address, a power of two.</param>
    /// <exception cref="KernelException">The address space has no such hole.</exception>
    public AddressReservation(ulong length, ulong alignment) : base(ownsHandle: true)
    {
        Length = length;
        int answer = MemoryCalls.Reserve(length, alignment, out nint address);
        if (answer < 0)
        {
            throw new KernelException($"reserve {length} bytes of addresses", -answer);
        }

        SetHandle(address);
    }

    /// <summary>Bytes reserved.</summary>
    public ulong Length { get; }

    /// <summary>The first address.</summary>
    public nint Address => handle;

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => MemoryCalls.Unmap(handle, Length) == 0;
}
