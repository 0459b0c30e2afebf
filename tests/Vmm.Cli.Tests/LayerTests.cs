using System.Reflection;

namespace Vmm.Cli.Tests;

public sealed class LayerTests
{
    [Fact]
    public void The_command_line_links_neither_kvm_nor_devices_nor_storage()
    {
        HashSet<string> seen = [];
        Queue<AssemblyName> open = new([typeof(Application).Assembly.GetName()]);
        while (open.TryDequeue(out AssemblyName? name))
        {
            if (seen.Add(name.Name!))
            {
                foreach (AssemblyName other in Assembly.Load(name)
                    .GetReferencedAssemblies()
                    .Where(o => o.Name!.StartsWith("Vmm.", StringComparison.Ordinal)))
                {
                    open.Enqueue(other);
                }
            }
        }

        Assert.Contains("Vmm.Spec", seen);
        Assert.Empty(seen.Intersect(["Vmm.Kvm", "Vmm.Storage", "Vmm.Devices", "Vmm.Machine"], StringComparer.Ordinal));
    }
}
