using System.Numerics;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Pci;

/// <summary>What software reads in the low bits of a memory BAR (PCI Express base spec 7.5.1.2.1).</summary>
public enum BarKind
{
    /// <summary>Below 4 GiB, reads have side effects.</summary>
    Memory32 = 0,
    /// <summary>A register pair that holds 64 bits, reads have side effects.</summary>
    Memory64 = 4,
    /// <summary>A register pair that holds 64 bits; reads have no side effects. Has its place in the window above 4 GiB.</summary>
    Memory64Prefetchable = 0xC,
}

/// <summary>One base address register of a function: its kind, its length, and what answers there.</summary>
public sealed class Bar
{
    private Bar(BarKind kind, ulong length, IBusDevice registers, HostMapping? mapping)
    {
        if (length < 16 || !BitOperations.IsPow2(length) || (kind == BarKind.Memory32 && length > 1u << 31))
        {
            throw new ArgumentException(
                $"a BAR cannot have {length} bytes: its length is a power of two of at least 16, and a 32-bit one has 2 GiB at most",
                nameof(length));
        }

        Kind = kind;
        Length = length;
        Registers = registers;
        Mapping = mapping;
    }

    /// <summary>Kind.</summary>
    public BarKind Kind { get; }

    /// <summary>Bytes, a power of two.</summary>
    public ulong Length { get; }

    /// <summary>It takes two of the six registers.</summary>
    public bool IsWide => Kind != BarKind.Memory32;

    /// <summary>Answers accesses that leave the guest.</summary>
    internal IBusDevice Registers { get; }

    /// <summary>The memory that the guest reaches without leaving; null for registers.</summary>
    internal HostMapping? Mapping { get; }

    /// <summary>A BAR whose accesses go to a device.</summary>
    /// <exception cref="ArgumentException">No BAR can have that length.</exception>
    public static Bar OfRegisters(BarKind kind, ulong length, IBusDevice registers) => new(kind, length, registers, null);

    /// <summary>
    /// A 64-bit prefetchable BAR that is host memory. It is as long as the next power of two; what is beyond the memory reads as all ones.
    /// </summary>
    /// <exception cref="ArgumentException">No BAR can have that length.</exception>
    public static Bar OfMemory(HostMapping mapping) =>
        new(BarKind.Memory64Prefetchable, BitOperations.RoundUpToPowerOf2(mapping.Length), Unbacked.Instance, mapping);

    /// <summary>Keeps others off the range of a mapping, and takes writes to one that is read-only.</summary>
    private sealed class Unbacked : IBusDevice
    {
        internal static readonly Unbacked Instance = new();

        public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

        public void Write(ulong offset, ReadOnlySpan<byte> data) { }
    }
}
