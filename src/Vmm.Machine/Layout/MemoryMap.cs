using Vmm.Memory;
using Vmm.Placement;

namespace Vmm.Machine.Layout;

/// <summary>A piece of RAM in guest physical address space. A vnode that straddles the PCI hole has two.</summary>
/// <param name="Start">First guest physical address.</param>
/// <param name="Length">How much RAM.</param>
/// <param name="Vnode">The virtual NUMA node it belongs to.</param>
/// <param name="BackingOffset">Offset of its first byte in the vnode's memory, in bytes.</param>
public sealed record RamExtent(GuestAddress Start, ByteSize Length, int Vnode, ulong BackingOffset);

/// <summary>A range of guest physical addresses that is not RAM.</summary>
public readonly record struct AddressWindow(GuestAddress Start, ByteSize Length)
{
    /// <summary>One past the last address.</summary>
    public GuestAddress End => Start + Length;
}

/// <summary>
/// The guest physical address map (design: RAM below 3 GiB and from 4 GiB up, PCI in between and above RAM), a pure function of the vnode
/// sizes.
/// </summary>
public sealed class MemoryMap
{
    /// <summary>RAM stops here and goes on at <see cref="HighRamStart"/>.</summary>
    public const ulong LowRamEnd = 3UL << 30;

    /// <summary>RAM stops here in a machine that starts by firmware, which puts BARs and ECAM from here on.</summary>
    public const ulong FirmwareLowRamEnd = 2UL << 30;

    /// <summary>First address of RAM above the hole.</summary>
    public const ulong HighRamStart = 4UL << 30;

    private static readonly List<RamExtent> s_none = [];

    private const ulong Gigabyte = 1UL << 30;

    // Linux adds memory in blocks of up to 2 GiB (arch/x86/mm/init_64.c, probe_memory_block_size): what starts between two borders it
    // cannot use whole.
    private const ulong HotAlignment = 2 * Gigabyte;

    internal MemoryMap(IReadOnlyList<RamExtent> ram, IReadOnlyList<RamExtent> hot, AddressWindow window64)
    {
        Ram = ram;
        Hot = hot;
        PciWindow64 = window64;
    }

    /// <summary>RAM, in address order; vnode 0 lies lowest.</summary>
    public IReadOnlyList<RamExtent> Ram { get; }

    /// <summary>Where RAM that comes and goes can be, in address order, above all other RAM; at most one extent per vnode.</summary>
    public IReadOnlyList<RamExtent> Hot { get; }

    /// <summary>32-bit PCI BARs.</summary>
    public static AddressWindow PciWindow32 { get; } = new(new(LowRamEnd), ByteSize.MiB(512));

    /// <summary>Where firmware may put 32-bit BARs, with ECAM among them: up to the I/O APIC's part of the addresses.</summary>
    public static AddressWindow FirmwareWindow32 { get; } = new(new(FirmwareLowRamEnd), new ByteSize(0xFC00_0000 - FirmwareLowRamEnd));

    /// <summary>PCI Express configuration space (ECAM), 256 buses of 1 MiB.</summary>
    public static AddressWindow Ecam { get; } = new(new(0xE000_0000), ByteSize.MiB(256));

    /// <summary>virtio-mmio slots of 512 bytes each, where QEMU's microvm has them too.</summary>
    public static AddressWindow VirtioMmio { get; } = new(new(0xFEB0_0000), new ByteSize(32 * 0x200));

    /// <summary>64-bit PCI BARs, above RAM.</summary>
    public AddressWindow PciWindow64 { get; }

    /// <summary>End of RAM above 4 GiB, or of low RAM when there is none above.</summary>
    public GuestAddress RamEnd => Ram[^1].Start + Ram[^1].Length;

    /// <summary>Lays out the vnodes one after the other. A vnode of zero bytes has no extent (a CPU-only node).</summary>
    /// <param name="vnodeSizes">RAM per vnode, multiples of 4096.</param>
    /// <param name="physicalAddressBits">Width of guest physical addresses (CPUID 0x80000008 EAX[7:0]).</param>
    /// <param name="hotSizes">RAM that can come and go, per vnode; null for none.</param>
    /// <param name="byFirmware">Firmware gives BARs their addresses: it finds room below 4 GiB, and all that is above RAM.</param>
    /// <exception cref="HostMismatchException">No memory at all, a size that is not whole pages, or more than the CPU can
    /// address.</exception>
    public static MemoryMap Create(
        ByteSize[] vnodeSizes, int physicalAddressBits, ByteSize[]? hotSizes = null, bool byFirmware = false)
    {
        ulong lowEnd = byFirmware ? FirmwareLowRamEnd : LowRamEnd;
        ulong limit = 1UL << physicalAddressBits;
        ulong total = 0;
        foreach (ByteSize size in vnodeSizes)
        {
            if (size >= limit - total)
            {
                throw new HostMismatchException(
                    $"{size} bytes of memory on top of {total} do not fit the {physicalAddressBits} physical address bits of this CPU");
            }

            total += size;
        }

        List<RamExtent> ram = [];
        ulong next = 0;
        for (int vnode = 0; vnode < vnodeSizes.Length; vnode++)
        {
            ulong remaining = vnodeSizes[vnode];
            ulong offset = 0;
            if (remaining % 4096 != 0)
            {
                throw new HostMismatchException($"vnode {vnode}: {remaining} bytes is not a whole number of 4 KiB pages");
            }

            while (remaining > 0)
            {
                if (next == lowEnd)
                {
                    next = HighRamStart;
                }

                ulong room = next < lowEnd ? lowEnd - next : ulong.MaxValue - next;
                ulong length = Math.Min(remaining, room);
                ram.Add(new RamExtent(new(next), new ByteSize(length), vnode, offset));
                next += length;
                offset += length;
                remaining -= length;
            }
        }

        if (ram.Count == 0)
        {
            throw new HostMismatchException("the VM has no memory");
        }

        List<RamExtent> hot = hotSizes is null ? s_none : PlaceHot(hotSizes, limit, ref next);
        ulong start = RoundUp(Math.Max(next, HighRamStart), Gigabyte);
        if (start >= limit)
        {
            throw new HostMismatchException(
                $"{next} bytes of address space do not fit the {physicalAddressBits} physical address bits of this CPU");
        }

        ulong window = byFirmware ? limit - start : Math.Min(64 * Gigabyte, limit - start);
        return new MemoryMap(ram, hot, new AddressWindow(new(start), new ByteSize(window)));
    }

    private static List<RamExtent> PlaceHot(ByteSize[] sizes, ulong limit, ref ulong next)
    {
        List<RamExtent> hot = [];
        for (int vnode = 0; vnode < sizes.Length; vnode++)
        {
            if (sizes[vnode] == 0)
            {
                continue;
            }

            ulong start = RoundUp(Math.Max(next, HighRamStart), HotAlignment);
            if (start >= limit || sizes[vnode] > limit - start)
            {
                throw new HostMismatchException($"vnode {vnode}: {sizes[vnode]} of memory that can come and go do not fit the address "
                    + $"space of this CPU (2^{System.Numerics.BitOperations.Log2(limit)})");
            }

            hot.Add(new RamExtent(new(start), sizes[vnode], vnode, 0));
            next = start + sizes[vnode];
        }

        return hot;
    }

    private static ulong RoundUp(ulong value, ulong unit) => (value + unit - 1) / unit * unit;
}
