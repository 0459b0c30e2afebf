using Vmm.State;

namespace Vmm.Kvm;

/// <summary>
/// How far the TSCs of the vCPUs are apart, version 1; its shape never changes. Their values are restored one after the other, and KVM
/// guesses from the time between that they belong together; with this they are exactly as far apart as the guest had them.
/// </summary>
public sealed record KvmTscStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "kvm-tsc";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Offset of each vCPU's TSC against the host's (KVM_VCPU_TSC_OFFSET), by its number.</summary>
    public required IReadOnlyList<ulong> Offsets { get; init; }

    /// <summary>Reads the offsets; null where this host's KVM does not tell them.</summary>
    public static KvmTscStateV1? Capture(IReadOnlyList<KvmVcpu> vcpus)
    {
        ulong[] offsets = new ulong[vcpus.Count];
        for (int i = 0; i < offsets.Length; i++)
        {
            if (!vcpus[i].TryGetTscOffset(out offsets[i]))
            {
                return null;
            }
        }

        return new KvmTscStateV1 { Offsets = offsets };
    }

    /// <summary>
    /// Makes all vCPUs as far apart from the first as they were. Their own state is restored. Where this host's KVM does not do that, they
    /// stay as KVM guessed.
    /// </summary>
    /// <exception cref="StateException">It is of another number of vCPUs.</exception>
    public void Restore(IReadOnlyList<KvmVcpu> vcpus)
    {
        if (Offsets.Count != vcpus.Count)
        {
            throw new StateException($"{Kind}: there were {Offsets.Count} vCPUs, here are {vcpus.Count}");
        }

        if (!vcpus[0].TryGetTscOffset(out ulong first))
        {
            return;
        }

        for (int i = 1; i < vcpus.Count; i++)
        {
            ulong wanted = OffsetOf(i, first);
            if (vcpus[i].TryGetTscOffset(out ulong now) && now != wanted)
            {
                vcpus[i].TrySetTscOffset(wanted);
            }
        }
    }

    /// <summary>The offset of a vCPU when that of the first one is <paramref name="first"/>.</summary>
    public ulong OffsetOf(int vcpu, ulong first) => unchecked(first + (Offsets[vcpu] - Offsets[0]));
}
