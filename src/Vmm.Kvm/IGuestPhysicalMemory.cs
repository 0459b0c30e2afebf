namespace Vmm.Kvm;

/// <summary>
/// Guest RAM by guest physical address, as <see cref="EmulationAssist"/> needs it. Addresses come from the guest: outside RAM is false.
/// </summary>
public interface IGuestPhysicalMemory
{
    /// <summary>Copies out the whole range, or nothing.</summary>
    bool TryRead(ulong guestPhysical, Span<byte> destination);

    /// <summary>Copies in the whole range, or nothing.</summary>
    bool TryWrite(ulong guestPhysical, ReadOnlySpan<byte> source);
}
