using Vmm.Contracts.Control;
using Vmm.Daemon.Api;
using Vmm.Testing;

namespace Vmm.Daemon.Tests;

public sealed class LayerTests
{
    [Fact]
    public void The_daemon_links_neither_kvm_nor_machine_nor_devices()
    {
        HashSet<string> linked = Links.Of(typeof(HostKvm).Assembly);
        Assert.Contains("Vmm.Spec", linked);
        Assert.Empty(linked.Intersect(["Vmm.Kvm", "Vmm.Machine", "Vmm.Devices"], StringComparer.Ordinal));
    }

    [Fact]
    public void The_contracts_link_the_life_cycle_and_nothing_else() =>
        Assert.Equal(["Vmm.Contracts", "Vmm.LifeCycle"], Links.Of(typeof(ControlFrame).Assembly).Order(StringComparer.Ordinal));
}
