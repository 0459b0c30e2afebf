using System.Collections.Frozen;

namespace Vmm.Cpu;

/// <summary>
/// The feature bits that have a name here. Names are Linux' (<c>arch/x86/include/asm/cpufeatures.h</c>), those of the KVM leaves are from
/// <c>Documentation/virt/kvm/x86/cpuid.rst</c>. A bit without a name is in no named model.
/// </summary>
public static class CpuFeatures
{
    /// <summary>The MSR IA32_ARCH_CAPABILITIES: what a processor is not vulnerable to.</summary>
    public const uint ArchCapabilitiesMsr = 0x10A;

    /// <summary>First leaf of KVM's own features.</summary>
    public const uint KvmSignatureLeaf = 0x4000_0000;

    /// <summary>KVM's own features (KVM_CPUID_FEATURES).</summary>
    public const uint KvmFeatureLeaf = 0x4000_0001;

    private const string NoName = "-";

    private static readonly CpuFeature[] s_all = Build();
    private static readonly FrozenDictionary<string, CpuFeature> s_byName = ByName();

    /// <summary>Every feature, register by register.</summary>
    public static IReadOnlyList<CpuFeature> All => s_all;

    /// <summary>
    /// The feature of this name. Other spellings are taken, too: <c>sse4.1</c>, <c>arch-capabilities</c>, <c>pni</c>, <c>lzcnt</c>.
    /// </summary>
    public static bool TryGet(string name, out CpuFeature feature)
    {
        string spelled = name.Replace('-', '_').Replace('.', '_');
        feature = s_byName.GetValueOrDefault(spelled)!;
        return feature is not null;
    }

    /// <summary>The feature of this name.</summary>
    /// <exception cref="ArgumentException">There is none.</exception>
    public static CpuFeature Get(string name) =>
        TryGet(name, out CpuFeature feature) ? feature : throw new ArgumentException($"\"{name}\" is no CPU feature", nameof(name));

    /// <summary>
    /// Features that the machine sets or that every guest needs: topology, interrupt controllers, what the boot protocol uses. No spec
    /// chooses them.
    /// </summary>
    public static bool IsFixed(CpuFeature feature) =>
        feature.IsMsr || feature.Name is "fpu" or "msr" or "pae" or "lm" or "apic" or "x2apic" or "tsc_deadline_timer"
            or "hypervisor" or "ht" or "cmp_legacy" or "topoext" or "osxsave" or "ospke" or "kvm_msi_ext_dest_id";

    private static FrozenDictionary<string, CpuFeature> ByName()
    {
        Dictionary<string, CpuFeature> names = new(StringComparer.Ordinal);
        foreach (CpuFeature feature in s_all)
        {
            names.Add(feature.Name, feature);
        }

        foreach ((string other, string name) in (ReadOnlySpan<(string, string)>)
        [
            ("pni", "sse3"), ("lzcnt", "abm"), ("sha", "sha_ni"), ("clflushsize", "clflush"), ("rdpid_msr", "rdpid")
        ])
        {
            names.Add(other, names[name]);
        }

        return names.ToFrozenDictionary(StringComparer.Ordinal);
    }

    private static CpuFeature[] Build()
    {
        List<CpuFeature> features = new(400);
        Add(features, 1, 0, CpuRegister.Edx, "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts "
            + "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe");
        Add(features, 1, 0, CpuRegister.Ecx,
            "sse3 pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic "
            + "movbe popcnt "
            + "tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor");
        Add(features, 6, 0, CpuRegister.Eax, "- - arat");
        Add(features, 7, 0, CpuRegister.Ebx,
            "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f "
            + "avx512dq rdseed adx smap "
            + "avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl");
        Add(features, 7, 0, CpuRegister.Ecx,
            "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme "
            + "avx512_vpopcntdq - la57 "
            + "- - - - - rdpid key_locker bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks");
        Add(features, 7, 0, CpuRegister.Edx,
            "- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - "
            + "tsx_force_abort serialize "
            + "hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d "
            + "arch_capabilities "
            + "core_capabilities spec_ctrl_ssbd");
        Add(features, 7, 1, CpuRegister.Eax,
            "sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrc - - - - fred lkgs wrmsrns "
            + "nmi_src amx_fp16 hreset "
            + "avx_ifma - - lam");
        Add(features, 7, 1, CpuRegister.Edx, "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchiti");
        Add(features, 7, 2, CpuRegister.Edx, "intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no");
        Add(features, 0xD, 1, CpuRegister.Eax, "xsaveopt xsavec xgetbv1 xsaves xfd");
        Add(features, KvmFeatureLeaf, 0, CpuRegister.Eax,
            "kvmclock kvm_nopiodelay kvm_mmu kvmclock2 kvm_asyncpf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt - kvm_pv_tlb_flush "
            + "kvm_asyncpf_vmexit "
            + "kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield kvm_asyncpf_int kvm_msi_ext_dest_id kvm_hc_map_gpa_range "
            + "kvm_migration_control "
            + "- - - - - - kvmclock_stable_bit");
        Add(features, 0x8000_0001, 0, CpuRegister.Ecx,
            "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - "
            + "nodeid_msr - tbm "
            + "topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx");
        Add(features, 0x8000_0001, 0, CpuRegister.Edx,
            "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow");
        Add(features, 0x8000_0007, 0, CpuRegister.Edx, "- - - - - - - - invtsc");
        Add(features, 0x8000_0008, 0, CpuRegister.Ebx,
            "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp - amd_stibp_always_on - - - - - "
            + "amd_ppin amd_ssbd "
            + "virt_ssbd amd_ssb_no cppc amd_psfd btc_no amd_ibpb_ret brs");
        Add(features, 0x8000_000A, 0, CpuRegister.Edx,
            "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - pfthreshold avic - "
            + "v_vmsave_vmload vgif - x2avic "
            + "- v_spec_ctrl - - - - vnmi - - svme_addr_chk");
        Add(features, 0x8000_0021, 0, CpuRegister.Eax,
            "no_nested_data_bp wrmsr_xx_base_ns lfence_rdtsc - - verw_clear null_sel_clr_base - autoibrs no_smm_ctl_msr - - - - - - - "
            + "gp_on_user_cpuid "
            + "- - prefetchi - - - - - - sbpb ibpb_brtype srso_no srso_user_kernel_no srso_bp_spec_reduce");
        Add(features, 0x8000_0021, 0, CpuRegister.Ecx, "- tsa_sq_no tsa_l1_no");
        Add(features, ArchCapabilitiesMsr, 0, CpuRegister.Eax,
            "rdcl_no ibrs_all rsba skip_l1dfl_vmentry ssb_no mds_no pschange_mc_no tsx_ctrl taa_no mcu_control misc_package_ctls "
            + "energy_filtering doitm "
            + "sbdr_ssdp_no fbsdp_no psdp_no - fb_clear fb_clear_ctrl rrsba bhi_no xapic_disable_status - overclocking_status pbrsb_no "
            + "gds_ctrl gds_no "
            + "rfds_no rfds_clear - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - its_no", msr: true);
        return [.. features];
    }

    private static void Add(List<CpuFeature> features, uint leaf, uint subleaf, CpuRegister register, string names, bool msr = false)
    {
        int bit = 0;
        foreach (string name in names.Split(' '))
        {
            if (!string.Equals(name, NoName, StringComparison.Ordinal))
            {
                features.Add(new CpuFeature(name, leaf, subleaf, register, bit, msr));
            }

            bit++;
        }
    }
}
