using Vmm.Cpu;
using Vmm.Interop.Kvm;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

/// <summary>CPU models on this host's KVM, and processors with wide APIC ids.</summary>
[Trait("Tier", "kvm")]
public sealed class CpuModelTests : IDisposable
{
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    [KvmFact]
    public void Kvm_takes_the_leaves_of_every_model_that_the_host_can_run()
    {
        CpuDescription host = HostCpu.Describe(_system);
        KvmCpuidEntry[] supported = _system.GetSupportedCpuid();
        Assert.Equal(supported.Select(Fields), HostCpu.Cpuid(HostCpu.Describe(supported, [])).Select(Fields));
        IReadOnlyList<string> models = CpuModel.RunnableOn(host);
        Assert.Contains("x86-64-v1", models); // every 64-bit processor
        bool hides = KvmKindProbe.Detect(_system) == KvmKind.Hardware;
        foreach (string model in models)
        {
            CpuDescription shown = new CpuChoice(model, []).Describe(host);
            using TinyVm tiny = new(_system, irqChip: true);
            tiny.Vcpu.SetCpuid(HostCpu.Cpuid(shown));
            CpuDescription taken = HostCpu.Describe(tiny.Vcpu.GetCpuid(), []);
            Assert.Equal(shown.Vendor, taken.Vendor);
            // KVM keeps what depends on CR4 and on the place of the vCPU itself; one that only emulates shows the host's bits besides, and
            // announces paging of five levels where the host has it, without taking it.
            Assert.All(
                CpuFeatures.All.Where(
                    f => !f.IsMsr && !CpuFeatures.IsFixed(f) && (hides || (shown.Has(f) && f.Name is not ("arch_capabilities" or "la57")))),
                f => Assert.Equal(shown.Has(f), taken.Has(f)));
        }
    }

    [KvmFact]
    public void The_feature_msrs_of_the_host_are_taken_whole_or_refused_by_name()
    {
        KvmMsrEntry[] features = HostCpu.FeatureMsrs(HostCpu.Describe(_system));
        using TinyVm tiny = new(_system, irqChip: true);
        List<uint> refused = [];
        int taken = tiny.Vcpu.SetMsrs(features, refused); // an emulating KVM may announce the MSR and not have it
        Assert.Equal(features.Length, taken + refused.Count);
        KvmMsrEntry[] now = tiny.Vcpu.GetMsrs([.. features.Select(m => m.Index).Except(refused)]);
        Assert.Equal(features.Where(m => !refused.Contains(m.Index)).Select(m => (m.Index, m.Data)), now.Select(m => (m.Index, m.Data)));
        Assert.Equal(
            features.Select(m => m.Index), _system.GetFeatureMsrs().Select(m => m.Index).Intersect([CpuFeatures.ArchCapabilitiesMsr]));
    }

    [KvmFact]
    public void A_vcpu_whose_apic_id_needs_more_than_8_bits_is_started_by_messages_to_that_id()
    {
        const uint wide = 300, alias = wide & 0xFF;
        using TinyVm tiny = new(_system, irqChip: true, prepare: vm => vm.EnableWideApicIds());
        using KvmVcpu other = tiny.Vm.CreateVcpu(alias), target = tiny.Vm.CreateVcpu(wide);
        other.SetCpuid(_system.GetSupportedCpuid());
        target.SetCpuid(_system.GetSupportedCpuid());
        target.SetLapic(target.GetLapic()); // some KVMs look at the ids only then
        const uint init = 5 << 8, startup = (6 << 8) | 0x10, uninitialized = 1, runnable = 0;
        Assert.Equal((uninitialized, uninitialized), (other.GetMpState().MpState, target.GetMpState().MpState));
        ulong address = 0xFEE0_0000 | ((wide & 0xFF) << 12) | ((ulong)(wide & ~0xFFu) << 32);
        tiny.Vm.SignalMsi(address, init);
        tiny.Vm.SignalMsi(address, startup);
        Assert.Equal(uninitialized, other.GetMpState().MpState);
        Assert.Equal(runnable, target.GetMpState().MpState);
        Assert.Equal(0x10000u, target.GetSregs().Cs.Base);
    }

    private static (uint, uint, uint, uint, uint, uint, uint) Fields(KvmCpuidEntry e) =>
        (e.Function, e.Index, e.Flags, e.Eax, e.Ebx, e.Ecx, e.Edx);
}
