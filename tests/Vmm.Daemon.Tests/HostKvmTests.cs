using Vmm.Cpu;
using Vmm.Daemon.Api;

namespace Vmm.Daemon.Tests;

public sealed class HostKvmTests
{
    [Fact]
    public void KVM_is_probed_once_and_its_absence_looked_at_again_after_a_while()
    {
        FakeTime time = new();
        int probes = 0;
        string answer = "none";
        HostKvm kvm = new(time, () => { probes++; return new KvmSurvey(answer, null, null); });
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal("none", kvm.Kind);
        }

        Assert.Equal(1, probes);
        answer = "hardware";
        time.Advance(HostKvm.Again);
        Assert.Equal("hardware", kvm.Kind);
        time.Advance(TimeSpan.FromDays(1));
        Assert.Equal("hardware", kvm.Kind);
        Assert.Equal(2, probes);
    }
}
