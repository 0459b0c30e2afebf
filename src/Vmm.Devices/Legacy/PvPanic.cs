using Vmm.Devices.Bus;

namespace Vmm.Devices.Legacy;

/// <summary>What a guest tells through <see cref="PvPanic"/>, bit by bit (QEMU's docs/specs/pvpanic).</summary>
[Flags]
public enum GuestPanicEvents
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>The guest's kernel panicked.</summary>
    Panicked = 1,

    /// <summary>It panicked and its crash kernel takes over.</summary>
    CrashLoaded = 2,
}

/// <summary>
/// The paravirtual panic device at one port: a read says which events the host takes, a write tells one (QEMU's docs/specs/pvpanic; ACPI id
/// QEMU0001).
/// </summary>
public sealed class PvPanic(Action<GuestPanicEvents> told) : IBusDevice
{
    /// <summary>The port.</summary>
    public const ulong Port = 0x505;

    private const byte Known = (byte)(GuestPanicEvents.Panicked | GuestPanicEvents.CrashLoaded);

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        data[0] = Known;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if ((data[0] & Known) != 0)
        {
            told((GuestPanicEvents)(data[0] & Known));
        }
    }
}
