namespace Vmm.Cpu;

/// <summary>
/// Which features make no sense without which others (as <c>arch/x86/kernel/cpu/cpuid-deps.c</c> of Linux has it): one that is taken away
/// takes those with it, one that is added brings what it needs.
/// </summary>
public static class FeatureDependencies
{
    // Each line: what the features behind the colon need.
    private static readonly string[] s_lines =
    [
        "fxsr: sse fxsr_opt",
        "sse: sse2",
        "sse2: sse3 aes pclmulqdq gfni sha_ni",
        "sse3: ssse3",
        "ssse3: sse4_1",
        "sse4_1: sse4_2",
        "sse: sse4a misalignsse",
        "xsave: avx mpx pku xsaveopt xsavec xgetbv1 xsaves amx_tile",
        "xsaves: xfd",
        "avx: avx2 fma f16c xop fma4 avx_vnni vaes vpclmulqdq avx_ne_convert avx_vnni_int8 avx_ifma",
        "avx2: avx512f avx_vnni_int16",
        "avx512f: avx512dq avx512cd avx512bw avx512ifma avx512pf avx512er avx512vl avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg "
        + "avx512_vpopcntdq "
            + "avx512_4vnniw avx512_4fmaps avx512_vp2intersect avx512_bf16 avx512_fp16",
        "amx_tile: amx_bf16 amx_int8 amx_fp16 amx_complex",
        "svm: npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold avic v_vmsave_vmload "
        + "vgif x2avic v_spec_ctrl vnmi svme_addr_chk",
        "hypervisor: kvmclock2",
        "kvmclock2: kvmclock_stable_bit",
    ];

    private static readonly Lazy<(CpuFeature Needed, CpuFeature Needs)[]> s_pairs = new(Pairs);

    /// <summary>The feature and everything that needs it.</summary>
    public static IReadOnlySet<CpuFeature> WithDependents(CpuFeature feature) => Closure(feature, pair => (pair.Needed, pair.Needs));

    /// <summary>The feature and everything it needs.</summary>
    public static IReadOnlySet<CpuFeature> WithNeeds(CpuFeature feature) => Closure(feature, pair => (pair.Needs, pair.Needed));

    private static HashSet<CpuFeature> Closure(
        CpuFeature feature, Func<(CpuFeature Needed, CpuFeature Needs), (CpuFeature From, CpuFeature To)> direction)
    {
        HashSet<CpuFeature> found = [feature];
        Stack<CpuFeature> open = new([feature]);
        while (open.TryPop(out CpuFeature? next))
        {
            foreach ((CpuFeature from, CpuFeature to) in s_pairs.Value.Select(direction))
            {
                if (from == next && found.Add(to))
                {
                    open.Push(to);
                }
            }
        }

        return found;
    }

    private static (CpuFeature, CpuFeature)[] Pairs() =>
    [
        .. from line in s_lines
           let colon = line.IndexOf(':', StringComparison.Ordinal)
           from name in line[(colon + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries)
           select (CpuFeatures.Get(line[..colon]), CpuFeatures.Get(name)),
    ];
}
