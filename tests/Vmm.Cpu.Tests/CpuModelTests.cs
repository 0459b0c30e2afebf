namespace Vmm.Cpu.Tests;

/// <summary>Named models: what they have, what they hide, and what is said of a host that cannot run one.</summary>
public sealed class CpuModelTests
{
    [Theory]
    [InlineData("avx2", "CPUID 7.0 EBX bit 5")]
    [InlineData("sse3", "CPUID 1 ECX bit 0")]
    [InlineData("sse4.2", "CPUID 1 ECX bit 20")]
    [InlineData("popcnt", "CPUID 1 ECX bit 23")]
    [InlineData("xsave", "CPUID 1 ECX bit 26")]
    [InlineData("hypervisor", "CPUID 1 ECX bit 31")]
    [InlineData("sse2", "CPUID 1 EDX bit 26")]
    [InlineData("pbe", "CPUID 1 EDX bit 31")]
    [InlineData("lzcnt", "CPUID 80000001h ECX bit 5")]
    [InlineData("topoext", "CPUID 80000001h ECX bit 22")]
    [InlineData("nx", "CPUID 80000001h EDX bit 20")]
    [InlineData("lm", "CPUID 80000001h EDX bit 29")]
    [InlineData("avx512vl", "CPUID 7.0 EBX bit 31")]
    [InlineData("pks", "CPUID 7.0 ECX bit 31")]
    [InlineData("la57", "CPUID 7.0 ECX bit 16")]
    [InlineData("spec_ctrl", "CPUID 7.0 EDX bit 26")]
    [InlineData("spec_ctrl_ssbd", "CPUID 7.0 EDX bit 31")]
    [InlineData("lam", "CPUID 7.1 EAX bit 26")]
    [InlineData("prefetchiti", "CPUID 7.1 EDX bit 14")]
    [InlineData("xsaves", "CPUID D.1 EAX bit 3")]
    [InlineData("invtsc", "CPUID 80000007h EDX bit 8")]
    [InlineData("amd_ssbd", "CPUID 80000008h EBX bit 24")]
    [InlineData("svme_addr_chk", "CPUID 8000000Ah EDX bit 28")]
    [InlineData("srso_no", "CPUID 80000021h EAX bit 29")]
    [InlineData("autoibrs", "CPUID 80000021h EAX bit 8")]
    [InlineData("kvmclock_stable_bit", "CPUID 40000001h EAX bit 24")]
    [InlineData("kvm-msi-ext-dest-id", "CPUID 40000001h EAX bit 15")]
    [InlineData("gds_no", "MSR 10Ah bit 26")]
    [InlineData("its_no", "MSR 10Ah bit 62")]
    public void A_feature_is_the_bit_that_the_manuals_give_it(string name, string place) =>
        Assert.Equal(place, CpuFeatures.Get(name).Place);

    [Fact]
    public void No_two_features_are_one_bit()
    {
        Assert.Distinct(CpuFeatures.All.Select(f => (f.Leaf, f.Subleaf, f.Register, f.Bit)));
        Assert.All(CpuFeatures.All, f => Assert.InRange(f.Bit, 0, f.IsMsr ? 63 : 31));
    }

    [Theory]
    [InlineData("x86-64-v2", "cx16 lahf_lm popcnt sse3 sse4_1 sse4_2 ssse3")]
    [InlineData("x86-64-v3", "avx avx2 bmi1 bmi2 f16c fma lzcnt movbe xsave")]
    [InlineData("x86-64-v4", "avx512f avx512bw avx512cd avx512dq avx512vl")]
    public void A_level_of_the_psabi_adds_its_features_to_the_level_below(string name, string added)
    {
        CpuModel model = CpuModel.Find(name)!, below = CpuModel.All[CpuModel.All.ToList().IndexOf(model) - 1];
        Assert.Equal(added.Split(' ').Select(CpuFeatures.Get).ToHashSet(), model.Required.Except(below.Required).ToHashSet());
        Assert.Empty(below.Required.Except(model.Required));
        Assert.All("cmov cx8 fpu fxsr mmx syscall sse sse2".Split(' '), f => Assert.Contains(CpuFeatures.Get(f), below.Required));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_named_model_shows_its_features_and_no_others_whatever_the_host_has(bool amd)
    {
        CpuDescription rich = Hosts.Everything(amd);
        // Bits and leaves that have no name here.
        rich = rich with
        {
            Leaves = [.. rich.Leaves.Select(l => l with { Ecx = l.Leaf is 7 or 0x8000_0007
            ? uint.MaxValue
            : l.Ecx }), new CpuidLeaf(0x24, 0, true, 1, 2, 3, 4), new CpuidLeaf(0x8000_0022, 0, false, 5, 6, 7, 8)]
        };
        foreach (CpuModel model in CpuModel.All)
        {
            CpuDescription shown = new CpuChoice(model.Name, []).Describe(rich);
            HashSet<CpuFeature> allowed = [.. model.Required, .. model.Optional];
            Assert.Empty(shown.Missing(rich));
            Assert.All(model.Required, f => Assert.True(shown.Has(f), f.ToString()));
            Assert.DoesNotContain(CpuFeatures.All, f => shown.Has(f) && !allowed.Contains(f));
            Assert.DoesNotContain(shown.Leaves, l => l.Leaf is 0xA or 0x15 or 0x24 or 0x8000_000A or 0x8000_0022);
            foreach (CpuidLeaf leaf in shown.Leaves.Where(l => l.Leaf is 7 or 0x8000_0007 or 0x8000_0021 or CpuFeatures.KvmFeatureLeaf))
            {
                foreach (CpuRegister register in Enum.GetValues<CpuRegister>())
                {
                    uint named = allowed.Where(f => f.Leaf == leaf.Leaf && f.Subleaf == leaf.Subleaf && f.Register == register)
                        .Aggregate(0u, (bits, f) => bits | f.Mask);
                    Assert.Equal(
                        0u, leaf[register] & ~named & (leaf is { Leaf: 7, Subleaf: 0 } && register == CpuRegister.Eax ? 0 : uint.MaxValue));
                }
            }
        }
    }

    [Fact]
    public void A_named_model_is_the_same_on_two_hosts_that_share_nothing_else()
    {
        foreach (CpuModel model in CpuModel.All)
        {
            string[] least = [.. model.Required.Concat(model.Optional).Select(f => f.Name)];
            CpuDescription poor = Hosts.With(least), rich = Hosts.Everything();
            CpuDescription onPoor = new CpuChoice(model.Name, []).Describe(poor), onRich = new CpuChoice(model.Name, []).Describe(rich);
            Assert.Empty(onRich.Missing(poor));
            Assert.Empty(onPoor.Missing(rich));
            Assert.Equal(
                onPoor.Leaves.Order(Comparer<CpuidLeaf>.Create((a, b) => (a.Leaf, a.Subleaf).CompareTo((b.Leaf, b.Subleaf)))).Where(Tells),
                onRich.Leaves.Order(Comparer<CpuidLeaf>.Create((a, b) => (a.Leaf, a.Subleaf).CompareTo((b.Leaf, b.Subleaf)))).Where(Tells));
        }

        static bool Tells(CpuidLeaf leaf) => (leaf.Eax | leaf.Ebx | leaf.Ecx | leaf.Edx) != 0;
    }

    [Fact]
    public void Each_feature_that_a_host_lacks_is_named_with_its_bit()
    {
        CpuDescription host =
            Hosts.With([.. CpuModel.Find("x86-64-v3")!.Required.Where(f => f.Name is not ("avx2" or "bmi1")).Select(f => f.Name)]);
        CpuDescription wanted = new CpuChoice("x86-64-v3", []).Describe(host);
        Assert.Equal(["the host has no bmi1 (CPUID 7.0 EBX bit 3)", "the host has no avx2 (CPUID 7.0 EBX bit 5)"], wanted.Missing(host));
        Assert.Equal(["host", "x86-64-v1", "x86-64-v2"], CpuModel.RunnableOn(host));
    }

    [Fact]
    public void Every_required_feature_is_missed_alone()
    {
        CpuModel model = CpuModel.Find("x86-64-v4")!;
        foreach (CpuFeature lost in model.Required)
        {
            CpuDescription host = Hosts.With([.. model.Required.Where(f => f != lost).Select(f => f.Name)]);
            Assert.Contains($"the host has no {lost}", new CpuChoice(model.Name, []).Describe(host).Missing(host));
        }
    }

    [Fact]
    public void Features_are_added_with_what_they_need_and_taken_away_with_what_needs_them()
    {
        CpuDescription host = Hosts.Everything();
        CpuDescription more = new CpuChoice("x86-64-v2", ["+aes", "+avx2"]).Describe(host);
        Assert.All((string[])["aes", "avx2", "avx", "xsave", "sse4_2"], f => Assert.True(more.Has(CpuFeatures.Get(f)), f));
        Assert.False(more.Has(CpuFeatures.Get("bmi1")));
        Assert.Equal("x86-64-v2,+aes,+avx2", more.Model);

        CpuDescription less = new CpuChoice("host", ["-avx"]).Describe(host);
        Assert.All(
            (string[])["avx", "avx2", "fma", "avx512f", "avx512vl", "avx512_vnni"], f => Assert.False(less.Has(CpuFeatures.Get(f)), f));
        Assert.All((string[])["xsave", "sse4_2", "pku", "bmi2"], f => Assert.True(less.Has(CpuFeatures.Get(f)), f));
        Assert.Empty(less.Missing(host));
    }

    [Fact]
    public void The_xsave_area_has_the_components_of_the_features_that_are_there()
    {
        CpuDescription host = Hosts.Everything();
        Assert.Equal((0x7u, 832u, "2"), Area("x86-64-v3"));
        Assert.Equal((0xE7u, 2688u, "2 5 6 7"), Area("x86-64-v4"));
        Assert.Equal((0x207u, 2696u, "2 9"), Area("x86-64-v3", "+pku"));
        Assert.Equal((0x203u, 2696u, "9"), Area("host", "-avx"));
        Assert.DoesNotContain(new CpuChoice("x86-64-v2", []).Describe(host).Leaves, l => l.Leaf == 0xD);

        (uint, uint, string) Area(string model, params string[] features)
        {
            CpuDescription shown = new CpuChoice(model, features).Describe(host);
            CpuidLeaf main = shown.Find(0xD, 0)!.Value;
            return (main.Eax, main.Ecx, string.Join(' ', shown.Leaves.Where(l => l is { Leaf: 0xD, Subleaf: > 1 }).Select(l => l.Subleaf)));
        }
    }

    [Fact]
    public void Without_a_choice_the_guest_has_what_the_host_has()
    {
        CpuDescription host = Hosts.Everything();
        Assert.Same(host, new CpuChoice("host", []).Describe(host));
    }

    [Fact]
    public void A_host_that_can_show_less_of_the_processor_is_told_part_by_part()
    {
        CpuDescription guest = Hosts.With(["fpu", "xsave"], physicalBits: 48);
        Assert.Empty(guest.Missing(guest));
        Assert.Equal(
            ["the host's processor is of AuthenticAMD, not of GenuineIntel"],
            guest.Missing(Hosts.With(["fpu", "xsave"], amd: true, physicalBits: 48)));
        Assert.Equal(
            ["the host has physical addresses of 46 bits, not 48 (CPUID 80000008h EAX bits 7-0)"],
            guest.Missing(Hosts.With(["fpu", "xsave"])));
        CpuDescription moved = guest with
        {
            Leaves = [.. guest.Leaves.Select(l => l is { Leaf: 0xD, Subleaf: 2 }
            ? l with { Ebx = 640 }
            : l)]
        };
        Assert.Equal(["the host has no XSAVE component 2 of 256 bytes at offset 576 (CPUID D.2)"], guest.Missing(moved));
        CpuDescription trusting = guest with { Msrs = [new CpuMsr(0x10A, 1UL << 26)] };
        Assert.Equal(["the host has no gds_no (MSR 10Ah bit 26)"], trusting.Missing(guest));
    }

    [Fact]
    public void A_guest_reads_arch_capabilities_only_where_its_model_announces_them()
    {
        CpuDescription host = Hosts.Everything();
        Assert.Empty(new CpuChoice("x86-64-v3", []).Describe(host).Msrs);
        Assert.Equal([0x10Au], new CpuChoice("x86-64-v3", ["+arch-capabilities"]).Describe(host).Msrs.Select(m => m.Index));
        Assert.Equal([0x8Bu], new CpuChoice("host", ["-arch_capabilities"]).Describe(host).Msrs.Select(m => m.Index));
    }

    [Theory]
    [InlineData("avx2", "expected +name or -name")]
    [InlineData("+", "expected +name or -name")]
    [InlineData("+avx9", "is no CPU feature that is known here")]
    [InlineData("-x2apic", "is set by the machine itself: leave it out")]
    [InlineData("+gds_no", "is set by the machine itself: leave it out")]
    public void An_unsound_feature_is_refused(string text, string problem)
    {
        Assert.Equal(problem, CpuChoice.Problem(text));
        Assert.Throws<InvalidOperationException>(() => new CpuChoice("host", [text]).Describe(Hosts.Everything()));
    }
}
