using Vmm.Machine.Run;
using Vmm.Testing;

namespace Vmm.Machine.Tests;

public sealed class LayerTests
{
    [Fact]
    public void The_machine_links_the_life_cycle_and_not_what_is_said_about_it()
    {
        HashSet<string> linked = Links.Of(typeof(VirtualMachine).Assembly);
        Assert.Contains("Vmm.LifeCycle", linked);
        Assert.DoesNotContain("Vmm.Contracts", linked);
    }
}
