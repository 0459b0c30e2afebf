using Vmm.Devices.Legacy;
using Vmm.Memory;

namespace Vmm.Machine.Boot;

/// <summary>
/// The only firmware there is: what stands at F000:FFF0 resets the machine. Linux comes here in real mode when it reboots a
/// hardware-reduced ACPI machine that has no EFI (reboot type <c>bios</c>, with <c>reboot=b</c> on any machine).
/// </summary>
internal static class ResetStub
{
    private static ReadOnlySpan<byte> Code =>
    [
        0xBA, ResetControl.Port & 0xFF, ResetControl.Port >> 8, // mov $0xCF9, %dx
        0xB0, ResetControl.ResetValue,                          // mov $6, %al
        0xEE,                                                   // out %al, (%dx)
        0xFA,                                                   // cli
        0xF4,                                                   // hlt
        0xEB, 0xFD,                                             // jmp to the hlt
    ];

    /// <summary>Puts it into the first MiB.</summary>
    internal static void Write(GuestMemory memory) => BootWriter.Write(memory, BootLayout.ResetVector, Code);
}
