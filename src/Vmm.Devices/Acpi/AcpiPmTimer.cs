using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Acpi;

/// <summary>
/// The ACPI power management timer (ACPI 6.5 section 4.8.3.3): a counter of 32 bits at 3.579545 MHz, read only. Kernels without a
/// paravirtual clock calibrate their TSC with it. It has no interrupt: the overflow event is fixed hardware, which this machine does not
/// have.
/// </summary>
/// <param name="clock">The time it counts; null is the host's.</param>
public sealed class AcpiPmTimer(TimeProvider? clock = null) : IBusDevice
{
    /// <summary>First of its ports.</summary>
    public const ulong Port = 0x608;

    /// <summary>Number of its ports.</summary>
    public const byte Length = 4;

    /// <summary>Counts a second.</summary>
    public const long Frequency = 3_579_545;

    private readonly TimeProvider _clock = clock ?? TimeProvider.System;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        // Eight bytes, so that an access at any offset finds its bytes; those behind the counter are zero.
        Span<byte> counter = stackalloc byte[16];
        counter.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(
            counter, (uint)((UInt128)(ulong)_clock.GetTimestamp() * Frequency / (ulong)_clock.TimestampFrequency));
        counter.Slice((int)(offset & 3), data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        // Read only.
    }
}
