using System.Numerics;

namespace Vmm.Spec;

/// <summary>
/// How vCPUs are packed: <see cref="Sockets"/> of <see cref="Dies"/> of <see cref="Cores"/> of <see cref="Threads"/>, numbered in this
/// order: vCPU 0 and 1 are threads of one core before vCPU 2 is another core. The last-level cache belongs to a die, so a die lies in one
/// vnode.
/// </summary>
public sealed record TopologySpec
{
    /// <summary>Sockets; null: what the cores leave, or without those one for each vnode with CPUs.</summary>
    public int? Sockets { get; init; }

    /// <summary>Dies of a socket.</summary>
    public int Dies { get; init; } = 1;

    /// <summary>Cores of a die; null: what the others leave.</summary>
    public int? Cores { get; init; }

    /// <summary>Threads of a core.</summary>
    public int Threads { get; init; } = 1;

    /// <summary>All four as numbers; null when they cannot give so many vCPUs.</summary>
    /// <param name="cpus">vCPUs.</param>
    /// <param name="vnodes">Vnodes with CPUs.</param>
    public CpuShape? Shape(int cpus, int vnodes)
    {
        if (Dies < 1 || Threads < 1 || Cores < 1 || Sockets < 1)
        {
            return null;
        }

        long rest = (long)Dies * Threads * (Cores ?? 1);
        int sockets = Sockets ?? (Cores is null ? Math.Max(1, vnodes) : (int)(cpus / rest));
        int cores = Cores ?? (int)(cpus / ((long)Dies * Threads * sockets));
        return sockets > 0 && cores > 0 && (Int128)sockets * Dies * cores * Threads == cpus
            ? new CpuShape(sockets, Dies, cores, Threads)
            : null;
    }
}

/// <summary>A topology in numbers; their product is the number of vCPUs.</summary>
/// <param name="Sockets">Sockets.</param>
/// <param name="Dies">Dies of a socket.</param>
/// <param name="Cores">Cores of a die.</param>
/// <param name="Threads">Threads of a core.</param>
public readonly record struct CpuShape(int Sockets, int Dies, int Cores, int Threads)
{
    /// <summary>vCPUs of a die, which share their last-level cache.</summary>
    public int CpusOfDie => Cores * Threads;

    /// <summary>
    /// The APIC id of the last vCPU: package, die, core and thread number in fields of whole bits (Intel SDM vol. 3, 9.9.3.2), so that a
    /// size that is no power of two wastes ids.
    /// </summary>
    public uint GreatestApicId
    {
        get
        {
            int dieShift = BitsFor(Threads) + BitsFor(Cores);
            uint package = (uint)(Sockets - 1) << (dieShift + BitsFor(Dies)), die = (uint)(Dies - 1) << dieShift;
            return package | die | ((uint)(Cores - 1) << BitsFor(Threads)) | (uint)(Threads - 1);
        }
    }

    /// <summary>Bits that numbers below <paramref name="count"/> need.</summary>
    public static int BitsFor(int count) => count <= 1 ? 0 : 32 - BitOperations.LeadingZeroCount((uint)(count - 1));
}
