using Vmm.Kvm;
using Vmm.Testing;

namespace Vmm.State.Tests.Parts;

/// <summary>How far the TSCs of vCPUs are apart after a restore.</summary>
public sealed class TscTests
{
    [Fact]
    public void Every_vCPU_is_as_far_from_the_first_as_it_was_whatever_the_hosts_TSC_is()
    {
        KvmTscStateV1 state = new() { Offsets = [1000, 1000, 990, ulong.MaxValue] };
        Assert.Equal([5, 5, ulong.MaxValue - 4, ulong.MaxValue - 995], new[] { 0, 1, 2, 3 }.Select(i => state.OffsetOf(i, 5)));
    }

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void Offsets_of_this_KVM_are_read_and_restored()
    {
        using KvmSystem system = KvmSystem.Open();
        using KvmVm first = system.CreateVm(), second = system.CreateVm();
        using KvmVcpu a0 = first.CreateVcpu(0), a1 = first.CreateVcpu(1), b0 = second.CreateVcpu(0), b1 = second.CreateVcpu(1);
        if (!a0.TryGetTscOffset(out _))
        {
            Assert.Null(KvmTscStateV1.Capture([a0, a1]));
            new KvmTscStateV1 { Offsets = [1, 2] }.Restore([a0, a1]); // and nothing happens
            return;
        }

        Assert.True(a0.TrySetTscOffset(1_000_000) && a1.TrySetTscOffset(1_005_000));
        KvmTscStateV1 state = KvmTscStateV1.Capture([a0, a1])!;
        bool keeps = state.Offsets[0] != 0; // a KVM that emulates kernel code takes any offset and has none
        Assert.Equal(keeps ? [1_000_000UL, 1_005_000UL] : [0UL, 0UL], state.Offsets);
        b0.TrySetTscOffset(7_000_000);
        b1.TrySetTscOffset(9_000_000);
        state.Restore([b0, b1]);
        Assert.True(b0.TryGetTscOffset(out ulong zero) && b1.TryGetTscOffset(out ulong one) && one - zero == (keeps ? 5000UL : 0UL));
        Refused.With("there were 2 vCPUs, here are 1", () => state.Restore([b0]));
    }
}
