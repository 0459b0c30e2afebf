namespace Vmm.Cpu;

/// <summary>The names of the bits of one register of a leaf, or of an MSR.</summary>
/// <param name="Leaf">The CPUID leaf, or the MSR.</param>
/// <param name="Subleaf">The subleaf.</param>
/// <param name="Register">Which register of it.</param>
/// <param name="Names">From bit 0 up, separated by spaces; <see cref="None"/> for a bit without a name here.</param>
/// <param name="IsMsr">The bits are those of an MSR.</param>
internal sealed record CpuFeatureNames(uint Leaf, uint Subleaf, CpuRegister Register, string Names, bool IsMsr = false)
{
    internal const string None = "-";

    /// <summary>Every register whose bits have names.</summary>
    internal static IReadOnlyList<CpuFeatureNames> All { get; } =
    [
        new(1, 0, CpuRegister.Edx,
            "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss "
            + "ht tm ia64 pbe"),
        new(1, 0, CpuRegister.Ecx,
            "sse3 pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 "
            + "x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor"),
        new(6, 0, CpuRegister.Eax, "- - arat"),
        new(7, 0, CpuRegister.Ebx,
            "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f "
            + "avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"),
        new(7, 0, CpuRegister.Ecx,
            "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme "
            + "avx512_vpopcntdq - la57 - - - - - rdpid key_locker bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks"),
        new(7, 0, CpuRegister.Edx,
            "- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - "
            + "tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 "
            + "spec_ctrl intel_stibp flush_l1d arch_capabilities core_capabilities spec_ctrl_ssbd"),
        new(7, 1, CpuRegister.Eax,
            "sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrc - - - - fred lkgs "
            + "wrmsrns nmi_src amx_fp16 hreset avx_ifma - - lam"),
        new(7, 1, CpuRegister.Edx, "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchiti"),
        new(7, 2, CpuRegister.Edx, "intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no"),
        new(0xD, 1, CpuRegister.Eax, "xsaveopt xsavec xgetbv1 xsaves xfd"),
        new(CpuFeatures.KvmFeatureLeaf, 0, CpuRegister.Eax,
            "kvmclock kvm_nopiodelay kvm_mmu kvmclock2 kvm_asyncpf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt - kvm_pv_tlb_flush "
            + "kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield kvm_asyncpf_int kvm_msi_ext_dest_id "
            + "kvm_hc_map_gpa_range kvm_migration_control - - - - - - kvmclock_stable_bit"),
        new(0x8000_0001, 0, CpuRegister.Ecx,
            "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce "
            + "- nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx"),
        new(0x8000_0001, 0, CpuRegister.Edx,
            "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"),
        new(0x8000_0007, 0, CpuRegister.Edx, "- - - - - - - - invtsc"),
        new(0x8000_0008, 0, CpuRegister.Ebx,
            "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp - amd_stibp_always_on - - - - - "
            + "amd_ppin amd_ssbd virt_ssbd amd_ssb_no cppc amd_psfd btc_no amd_ibpb_ret brs"),
        new(0x8000_000A, 0, CpuRegister.Edx,
            "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - pfthreshold avic - "
            + "v_vmsave_vmload vgif - x2avic - v_spec_ctrl - - - - vnmi - - svme_addr_chk"),
        new(0x8000_0021, 0, CpuRegister.Eax,
            "no_nested_data_bp wrmsr_xx_base_ns lfence_rdtsc - - verw_clear null_sel_clr_base - autoibrs no_smm_ctl_msr - - - - - "
            + "- - gp_on_user_cpuid - - prefetchi - - - - - - sbpb ibpb_brtype srso_no srso_user_kernel_no srso_bp_spec_reduce"),
        new(0x8000_0021, 0, CpuRegister.Ecx, "- tsa_sq_no tsa_l1_no"),
        new(CpuFeatures.ArchCapabilitiesMsr, 0, CpuRegister.Eax,
            "rdcl_no ibrs_all rsba skip_l1dfl_vmentry ssb_no mds_no pschange_mc_no tsx_ctrl taa_no mcu_control misc_package_ctls "
            + "energy_filtering doitm sbdr_ssdp_no fbsdp_no psdp_no - fb_clear fb_clear_ctrl rrsba bhi_no xapic_disable_status - "
            + "overclocking_status pbrsb_no gds_ctrl gds_no rfds_no rfds_clear - - - - - - - - - - - - - - - - - - - - - - - - - - "
            + "- - - - - - - its_no", IsMsr: true)
    ];
}
