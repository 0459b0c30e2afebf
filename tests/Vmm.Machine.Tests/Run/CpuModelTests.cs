using Vmm.Cpu;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Cpu;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Run;

/// <summary>Machines with a CPU model, and with more processors than 8-bit APIC ids can name.</summary>
public sealed class CpuModelTests
{
    private static readonly CpuDescription s_host = new()
    {
        Model = "host",
        Leaves =
        [
            new CpuidLeaf(0, 0, false, 0x10, 0x6874_7541, 0x444D_4163, 0x6974_6E65),
            new CpuidLeaf(CpuFeatures.KvmFeatureLeaf, 0, false, 1, 0, 0, 0)
        ],
    };

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void A_guest_runs_on_the_model_that_every_host_has()
    {
        VmSpec spec = GuestKit.GuestSpec("hello") with { Cpus = 2, Cpu = new CpuSpec { Model = "x86-64-v1", Features = ["-mca"] } };
        using Terminal console = new();
        using VirtualMachine machine = VirtualMachine.Create(spec, console);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        RunResult result = machine.Run(deadline.Token);
        Assert.True(result is { Reason: ExitReason.DebugExit, ExitCode: 0 }, $"{result.Reason} {result.Message}");
        Assert.Equal("HELLO", console.Said.Trim());
    }

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void A_start_whose_model_the_host_cannot_run_is_refused_with_each_missing_bit()
    {
        CpuDescription host;
        using (KvmSystem kvm = KvmSystem.Open())
        {
            host = HostCpu.Describe(kvm);
        }

        // SVM's virtual NMI and Intel's key locker are not in one processor.
        VmSpec spec = GuestKit.GuestSpec("hello") with { Cpu = new CpuSpec { Model = "x86-64-v1", Features = ["+vnmi", "+key_locker"] } };
        using Terminal console = new();
        string said = Assert.Throws<HostMismatchException>(() => VirtualMachine.Create(spec, console)).Message;
        Assert.Contains("CPU model x86-64-v1,+vnmi,+key_locker: ", said, StringComparison.Ordinal);
        Assert.True(said.Contains("the host has no key_locker (CPUID 7.0 ECX bit 23)", StringComparison.Ordinal)
            || said.Contains("the host has no vnmi (CPUID 8000000Ah EDX bit 25)", StringComparison.Ordinal), said);
        Assert.EndsWith("; this host can run " + string.Join(", ", CpuModel.RunnableOn(host)), said, StringComparison.Ordinal);
    }

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void Three_hundred_processors_are_there_and_the_guest_finds_their_wide_ids_in_its_tables()
    {
        VmSpec spec = GuestKit.GuestSpec("numa") with { Cpus = 300, Topology = new TopologySpec { Sockets = 3, Cores = 100 } };
        Assert.Empty(SpecValidation.Validate(spec));
        using Terminal console = new();
        using VirtualMachine machine = VirtualMachine.Create(spec, console);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(120));
        RunResult result = machine.Run(deadline.Token);
        Assert.True(result is { Reason: ExitReason.DebugExit, ExitCode: 0 }, $"{result.Reason} {result.Message}\n{console.Said}");
        IEnumerable<int> ids = from socket in Enumerable.Range(0, 3) from core in Enumerable.Range(0, 100) select (socket << 7) + core;
        Assert.Equal(
            ids.Select(id => $"MADT apic={id}"),
            console.Said.Split('\n').Select(l => l.Trim()).Where(l => l.StartsWith("MADT ", StringComparison.Ordinal)));
    }

    [Fact]
    public void More_processors_than_kvm_has_are_refused_with_the_numbers()
    {
        VmSpec spec = new() { Name = "big", Cpus = 300 };
        CpuTopology narrow = CpuTopology.Create(new int[300]), wasteful = CpuTopology.Create(new int[129 * 5], new CpuShape(5, 1, 129, 1));
        Assert.Contains("300 vCPUs, and KVM of this host has 288", Refusal(narrow, Limits(288, 4096, 3)), StringComparison.Ordinal);
        Assert.Contains(
            "APIC ids up to 1152, and KVM of this host has ids up to 1023",
            Refusal(wasteful, Limits(1024, 1024, 3)),
            StringComparison.Ordinal);
        Assert.Contains("KVM_CAP_X2APIC_API", Refusal(narrow, Limits(1024, 4096, 1)), StringComparison.Ordinal);
        Assert.True(GuestCpu.Create(spec.Name, s_host, s_host, narrow, Limits(1024, 4096, 3)).HasWideApicIds);
        Assert.False(GuestCpu.Create(spec.Name, s_host, s_host, CpuTopology.Create(new int[255]), Limits(1024, 4096, 0)).HasWideApicIds);

        string Refusal(CpuTopology topology, Func<KvmCapability, int> limits) =>
            Assert.Throws<HostMismatchException>(() => GuestCpu.Create(spec.Name, s_host, s_host, topology, limits)).Message;

        static Func<KvmCapability, int> Limits(int cpus, int ids, int x2apic) => capability => capability switch
        {
            KvmCapability.MaxVcpus => cpus,
            KvmCapability.MaxVcpuId => ids,
            KvmCapability.X2apicApi => x2apic,
            _ => throw new ArgumentOutOfRangeException(nameof(capability)),
        };
    }

    [Fact]
    public void Wide_ids_are_announced_only_where_they_are_and_messages_carry_them()
    {
        foreach ((int cpus, bool wide) in new[] { (255, false), (256, true), (300, true) })
        {
            CpuTopology topology = CpuTopology.Create(new int[cpus]);
            KvmCpuidEntry[] cpuid = CpuidModel.Build(HostCpu.Cpuid(s_host), topology, topology.Vcpus[^1], tscDeadline: true);
            Assert.Equal(wide, (cpuid.Single(e => e.Function == CpuFeatures.KvmFeatureLeaf).Eax & (1 << 15)) != 0);
        }

        Assert.Equal(0xFEE2_C00Cul | (0x100ul << 32), KvmInterrupts.WideDestination(0xFEE2_C00C | (1 << 5))); // processor 0x12C
        Assert.Equal(0xFEEF_F000ul | (0x7F00ul << 32), KvmInterrupts.WideDestination(0xFEEF_F000 | (0x7F << 5)));
        Assert.Equal(0xFEE0_1000ul, KvmInterrupts.WideDestination(0xFEE0_1000));
    }
}
