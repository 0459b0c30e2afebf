using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Tests that count what the whole process has: no other test may run beside them.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Alone
{
    public const string Name = "alone";
}

[Collection(Alone.Name)]
[Trait("Tier", "kvm")]
public sealed class LeakTests
{
    [KvmFact]
    public void A_failed_build_leaves_nothing_behind()
    {
        using Terminal terminal = new();
        int before = Directory.GetFiles("/proc/self/fd").Length;
        for (int i = 0; i < 5; i++)
        {
            VmSpec spec = GuestSpec("hello") with { Disks = [new DiskSpec { Path = "/nonexistent/disk.raw" }] };
            Assert.ThrowsAny<Exception>(() => VirtualMachine.Create(spec, terminal));
        }

        Assert.InRange(Directory.GetFiles("/proc/self/fd").Length, 0, before + 4);
    }
}
