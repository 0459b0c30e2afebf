using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>How long a save or a restore may take.</summary>
internal static class SaveTime
{
    /// <summary>Storage that is slower than this has another trouble.</summary>
    private const double LeastBytesPerSecond = 8 << 20;

    private static readonly TimeSpan s_rest = TimeSpan.FromSeconds(90); // devices come to rest within 60 s, or the save fails

    /// <summary>The most for a VM of this spec, beyond a usual answer of a worker.</summary>
    internal static TimeSpan Longest(VmSpec spec) => s_rest + TimeSpan.FromSeconds(Bytes(spec) / LeastBytesPerSecond);

    /// <summary>All memory that it can have.</summary>
    internal static double Bytes(VmSpec spec) => spec.EffectiveVnodes.Sum(v => (double)Math.Max(v.Memory.Bytes, v.MaxMemory?.Bytes ?? 0));

    /// <summary>The largest memory that a vnode of it can have.</summary>
    internal static ulong LargestVnode(VmSpec spec) => spec.EffectiveVnodes.Max(v => Math.Max(v.Memory.Bytes, v.MaxMemory?.Bytes ?? 0));
}
