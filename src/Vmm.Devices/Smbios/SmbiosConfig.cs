using Vmm.Memory;

namespace Vmm.Devices.Smbios;

/// <summary>What the SMBIOS tables say of a machine. A text that is null is "not specified" to the guest.</summary>
public sealed record SmbiosConfig
{
    /// <summary>Who made it.</summary>
    public string? Manufacturer { get; init; }

    /// <summary>What it is called.</summary>
    public string? Product { get; init; }

    /// <summary>Its version.</summary>
    public string? Version { get; init; }

    /// <summary>Its serial number.</summary>
    public string? Serial { get; init; }

    /// <summary>Its stock keeping unit.</summary>
    public string? Sku { get; init; }

    /// <summary>The family of products it belongs to.</summary>
    public string? Family { get; init; }

    /// <summary>Its universal unique id; empty: none.</summary>
    public Guid Uuid { get; init; }

    /// <summary>Free texts for whoever looks for them (type 11).</summary>
    public IReadOnlyList<string> OemStrings { get; init; } = [];

    /// <summary>Describes a BIOS (type 0) as well: firmware says of itself what it is.</summary>
    public bool HasBios { get; init; }

    /// <summary>Processor packages.</summary>
    public required IReadOnlyList<SmbiosPackage> Packages { get; init; }

    /// <summary>What the processors are.</summary>
    public required SmbiosProcessor Processor { get; init; }

    /// <summary>RAM that is there from the start, in address order.</summary>
    public required IReadOnlyList<SmbiosMemory> Memory { get; init; }
}

/// <summary>A processor package.</summary>
/// <param name="Cores">Its cores.</param>
/// <param name="Threads">Threads of all of them.</param>
public readonly record struct SmbiosPackage(int Cores, int Threads);

/// <summary>What all processors of a machine are.</summary>
/// <param name="Vendor">Twelve characters of CPUID leaf 0.</param>
/// <param name="Brand">CPUID leaves 0x80000002 to 0x80000004; empty: it has no name.</param>
/// <param name="Id">CPUID leaf 1: EAX, and above it EDX.</param>
public sealed record SmbiosProcessor(string Vendor, string Brand, ulong Id);

/// <summary>A range of RAM.</summary>
/// <param name="Start">First address.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Vnode">The virtual NUMA node it is of.</param>
public readonly record struct SmbiosMemory(GuestAddress Start, ByteSize Length, int Vnode);
