using Vmm.Cpu;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Placement;

namespace Vmm.Machine.Cpu;

/// <summary>The processor of one VM on this host: what every vCPU of it shows, before its place in the topology is added.</summary>
internal sealed class GuestCpu
{
    private const int ShownMissing = 12;

    private GuestCpu(CpuDescription description, bool wideApicIds)
    {
        Cpuid = HostCpu.Cpuid(description);
        FeatureMsrs = HostCpu.FeatureMsrs(description);
        HasWideApicIds = wideApicIds;
    }

    /// <summary>CPUID leaves, for <see cref="CpuidModel.Build"/>.</summary>
    internal KvmCpuidEntry[] Cpuid { get; }

    /// <summary>Feature MSRs of each vCPU.</summary>
    internal KvmMsrEntry[] FeatureMsrs { get; }

    /// <summary>APIC ids need more than 8 bits.</summary>
    internal bool HasWideApicIds { get; }

    /// <summary>The processor of a machine.</summary>
    /// <param name="name">The VM, for messages.</param>
    /// <param name="wanted">What its guest finds.</param>
    /// <param name="host">What this host's KVM can show.</param>
    /// <param name="topology">The vCPUs.</param>
    /// <param name="capability">KVM_CHECK_EXTENSION of the VM.</param>
    /// <exception cref="HostMismatchException">The host lacks a feature of it, or KVM cannot have so many vCPUs.</exception>
    internal static GuestCpu Create(
        string name, CpuDescription wanted, CpuDescription host, CpuTopology topology, Func<KvmCapability, int> capability)
    {
        CheckLimits(name, topology, capability);
        if (ReferenceEquals(wanted, host))
        {
            return new GuestCpu(host, topology.HasWideApicIds);
        }

        IReadOnlyList<string> missing = wanted.Missing(host);
        if (missing.Count > 0)
        {
            string more = missing.Count > ShownMissing ? $", and {missing.Count - ShownMissing} more" : "";
            throw new HostMismatchException($"{name}: CPU model {wanted.Model}: {string.Join(", ", missing.Take(ShownMissing))}{more}; "
                + $"this host can run {string.Join(", ", CpuModel.RunnableOn(host))}");
        }

        return new GuestCpu(wanted, topology.HasWideApicIds);
    }

    private static void CheckLimits(string name, CpuTopology topology, Func<KvmCapability, int> capability)
    {
        // Small machines fit every KVM: no question for them.
        const int always = 4;
        if (topology.Vcpus.Count <= always && topology.GreatestApicId < always)
        {
            return;
        }

        int most = capability(KvmCapability.MaxVcpus), ids = capability(KvmCapability.MaxVcpuId);
        if (most > 0 && topology.Vcpus.Count > most)
        {
            throw new HostMismatchException($"{name}: {topology.Vcpus.Count} vCPUs, and KVM of this host has {most} for a VM");
        }

        if (ids > 0 && topology.GreatestApicId >= ids)
        {
            throw new HostMismatchException(
                $"{name}: its topology needs APIC ids up to {topology.GreatestApicId}, and KVM of this host has ids up to {ids - 1}: "
                    + "sizes that are powers of two waste none");
        }

        if (topology.HasWideApicIds && (capability(KvmCapability.X2apicApi) & 3) != 3)
        {
            throw new HostMismatchException($"{name}: its topology needs APIC ids up to {topology.GreatestApicId}, and KVM of this host "
                + "has no 32-bit ids (KVM_CAP_X2APIC_API)");
        }
    }
}
