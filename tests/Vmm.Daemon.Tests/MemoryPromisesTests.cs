using Vmm.Daemon.Vms;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>What VMs are promised of the host's memory.</summary>
public sealed class MemoryPromisesTests
{
    private static readonly MemoryPromises s_policy = new(1.5, () => ByteSize.GiB(2));

    [Fact]
    public void A_VM_is_promised_its_resident_limit_or_what_it_starts_with()
    {
        Assert.Equal(ByteSize.GiB(1), MemoryPromises.Of(Vm("a", 1024) with { MaxMemory = ByteSize.GiB(4) }));
        Assert.Equal(ByteSize.MiB(256), MemoryPromises.Of(Vm("a", 1024, "25%")));
    }

    [Fact]
    public void A_start_beyond_the_ratio_is_refused_with_the_numbers()
    {
        VmSpec[] running = [Vm("a", 1024), Vm("b", 4096, "1GiB")];
        s_policy.Admit(Vm("c", 1024), running).Dispose();
        ApiException refused = Assert.Throws<ApiException>(() => s_policy.Admit(Vm("c", 1028), running));
        Assert.Equal((409, "memory-promised"), (refused.Problem.Status, refused.Problem.Code));
        Assert.Contains(
            "c is promised 1028 MiB: with the 2048 MiB of 2 VMs that run that is more than 3072 MiB, 1.5 times the 2048 MiB of this host",
            refused.Problem.Detail, StringComparison.Ordinal);
        Assert.Contains("(its resident limit)", Assert.Throws<ApiException>(
            () => s_policy.Admit(Vm("c", 4096, "2GiB"), running)).Problem.Detail, StringComparison.Ordinal);
        s_policy.Admit(Vm("a", 2048), running).Dispose(); // its own promise is not in its way
    }

    [Fact]
    public void VMs_that_start_at_once_count_against_each_other_until_they_run_or_are_not_to()
    {
        MemoryPromises policy = new(1, () => ByteSize.GiB(1));
        IDisposable first = policy.Admit(Vm("a", 600), []);
        Assert.Throws<ApiException>(() => policy.Admit(Vm("b", 600), []));
        Assert.Throws<ApiException>(() => policy.Admit(Vm("b", 600), [Vm("a", 600)]));
        policy.Admit(Vm("b", 424), [Vm("a", 600)]).Dispose(); // it is counted once
        first.Dispose();
        policy.Admit(Vm("b", 600), []).Dispose();
    }

    [Fact]
    public void A_host_that_is_not_known_refuses_nothing()
    {
        MemoryPromises.Unbounded.Admit(Vm("a", 1 << 20), [Vm("b", 1 << 20)]).Dispose();
        Assert.Null(MemoryPromises.Unbounded.Limit);
        Assert.Equal(3UL << 30, s_policy.Limit);
    }

    private static VmSpec Vm(string name, ulong mebibytes, string? resident = null) => new()
    {
        Name = name,
        Memory = ByteSize.MiB(mebibytes),
        Paging = resident is not null && MemoryPortion.TryParse(resident, out MemoryPortion portion)
            ? new PagingSpec { Resident = portion }
            : null,
    };
}
