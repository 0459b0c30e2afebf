using Vmm.Testing;

namespace Vmm.Cli.Tests;

public sealed class LayerTests
{
    [Fact]
    public void The_command_line_links_neither_kvm_nor_devices()
    {
        HashSet<string> linked = Links.Of(typeof(Application).Assembly);
        Assert.Contains("Vmm.Spec", linked);
        Assert.Empty(linked.Intersect(["Vmm.Kvm", "Vmm.Devices", "Vmm.Machine"], StringComparer.Ordinal));
    }
}
