namespace Vmm.Cpu;

/// <summary>
/// A named processor model: the same feature bits on every host that has them. Baselines are the micro-architecture levels of the x86-64
/// psABI ("System V Application Binary Interface, AMD64 Architecture Processor Supplement", table 3.1), with what a 64-bit kernel takes for
/// granted.
/// </summary>
public sealed class CpuModel
{
    /// <summary>Everything that the host's KVM shows.</summary>
    public const string Host = "host";

    private const string Level1 =
        "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm";
    private const string Level2 = Level1 + " cx16 lahf_lm popcnt sse3 sse4_1 sse4_2 ssse3";
    private const string Level3 = Level2 + " avx avx2 bmi1 bmi2 f16c fma abm movbe xsave";
    private const string Level4 = Level3 + " avx512f avx512bw avx512cd avx512dq avx512vl";

    // What the machine and KVM make themselves; shown where they are there. The KVM ones are in every kernel since 5.10.
    private const string OfMachine = "x2apic tsc_deadline_timer hypervisor ht cmp_legacy topoext arat kvmclock kvm_nopiodelay kvmclock2 "
        + "kvm_asyncpf kvm_steal_time kvm_pv_eoi "
        + "kvm_pv_unhalt kvm_pv_tlb_flush kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield kvm_asyncpf_int kvmclock_stable_bit";

    private const string Name1 = "x86-64-v1", Name2 = "x86-64-v2", Name3 = "x86-64-v3", Name4 = "x86-64-v4";

    // Made when one is asked for: a program that only names models does not need the table of features.
    private static readonly Lazy<CpuModel[]> s_all =
        new(() => [new(Name1, Level1), new(Name2, Level2), new(Name3, Level3), new(Name4, Level4)]);

    private CpuModel(string name, string required)
    {
        Name = name;
        Required = [.. required.Split(' ').Select(CpuFeatures.Get)];
        Optional = [.. OfMachine.Split(' ').Select(CpuFeatures.Get)];
    }

    /// <summary>Its name in a spec.</summary>
    public string Name { get; }

    /// <summary>What it has, and a host must have.</summary>
    public IReadOnlyList<CpuFeature> Required { get; }

    /// <summary>What it shows where the host's KVM has it: no instruction of a program depends on these.</summary>
    public IReadOnlyList<CpuFeature> Optional { get; }

    /// <summary>The named models, the least first. <see cref="Host"/> is none of them.</summary>
    public static IReadOnlyList<CpuModel> All => s_all.Value;

    /// <summary>All that a spec may name.</summary>
    public static string[] Names { get; } = [Host, Name1, Name2, Name3, Name4];

    /// <summary>The model of a name; null for <see cref="Host"/> and unknown ones.</summary>
    public static CpuModel? Find(string name) => Array.Find(s_all.Value, m => string.Equals(m.Name, name, StringComparison.Ordinal));

    /// <summary>The names, with <see cref="Host"/>, that a host can run.</summary>
    public static IReadOnlyList<string> RunnableOn(CpuDescription host) =>
        [Host, .. s_all.Value.Where(m => new CpuChoice(m.Name, []).Describe(host).Missing(host).Count == 0).Select(m => m.Name)];
}
