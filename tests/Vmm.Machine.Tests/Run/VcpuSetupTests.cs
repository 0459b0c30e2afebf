using System.Runtime.Intrinsics.X86;
using Vmm.Interop.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Run;

namespace Vmm.Machine.Tests.Run;

/// <summary>In which order a vCPU gets its first state, and what its CPUID says of the processor's name.</summary>
public sealed class VcpuSetupTests
{
    [Fact]
    public void Cpuid_is_set_before_any_msr_and_before_registers()
    {
        Recorder vcpu = new();
        VcpuSetup.Apply(vcpu, [new KvmCpuidEntry { Function = 0 }], [], InitialCpuState.Pvh32(0x100_0000));
        Assert.Equal(["cpuid", "msrs", "get sregs", "sregs", "regs"], vcpu.Calls);
        Recorder second = new();
        VcpuSetup.Apply(second, [new KvmCpuidEntry { Function = 0 }], [], boot: null);
        Assert.Equal(["cpuid", "msrs"], second.Calls);
    }

    [Fact]
    public void Feature_msrs_are_written_after_cpuid_and_before_those_of_a_firmware()
    {
        Recorder vcpu = new();
        VcpuSetup.Apply(vcpu, [new KvmCpuidEntry { Function = 0 }], [new KvmMsrEntry { Index = 0x10A, Data = 5 }], boot: null);
        Assert.Equal(["cpuid", "msrs"], vcpu.Calls);
        Assert.Equal([0x10Au, 0x1A0, 0x2FF], vcpu.Msrs);
    }

    [Fact]
    public void The_name_of_the_processor_is_the_hosts()
    {
        uint[] brand = ProcessorBrand.Read();
        KvmCpuidEntry[] supported =
        [
            new() { Function = 0x8000_0000, Eax = 0x8000_0008 },
            .. Enumerable.Range(2, 3).Select(i => new KvmCpuidEntry { Function = 0x8000_0000 + (uint)i })
        ];
        CpuTopology topology = CpuTopology.Create([0]);
        KvmCpuidEntry[] cpuid = CpuidModel.Build(supported, topology, topology.Vcpus[0], tscDeadline: false, brand);
        KvmCpuidEntry[] leaves = [.. cpuid.Where(e => e.Function is >= 0x8000_0002 and <= 0x8000_0004)];
        Assert.Equal([0x8000_0002u, 0x8000_0003u, 0x8000_0004u], leaves.Select(e => e.Function));
        byte[] text = [.. leaves.SelectMany(e => (uint[])[e.Eax, e.Ebx, e.Ecx, e.Edx]).SelectMany(BitConverter.GetBytes)];
        string name = System.Text.Encoding.ASCII.GetString(text).TrimEnd('\0').Trim();
        // Not that of /proc/cpuinfo: the kernel of a host that is a guest itself may show another.
        byte[] host = [.. Enumerable.Range(2, 3).Select(i => X86Base.CpuId(unchecked((int)0x8000_0000) + i, 0))
            .SelectMany(r => (int[])[r.Eax, r.Ebx, r.Ecx, r.Edx]).SelectMany(BitConverter.GetBytes)];
        Assert.Equal(System.Text.Encoding.ASCII.GetString(host).TrimEnd('\0').Trim(), name);
        Assert.NotEmpty(name);
    }

    private sealed class Recorder : IVcpuState
    {
        public List<string> Calls { get; } = [];

        public void SetCpuid(ReadOnlySpan<KvmCpuidEntry> entries) => Calls.Add("cpuid");

        public List<uint> Msrs { get; } = [];

        public void SetMsrs(ReadOnlySpan<KvmMsrEntry> entries)
        {
            Calls.Add("msrs");
            foreach (KvmMsrEntry entry in entries)
            {
                Msrs.Add(entry.Index);
            }
        }

        public KvmSregs GetSregs()
        {
            Calls.Add("get sregs");
            return default;
        }

        public void SetSregs(in KvmSregs value) => Calls.Add("sregs");

        public void SetRegs(in KvmRegs value) => Calls.Add("regs");
    }
}
