using Vmm.Daemon.Api;

namespace Vmm.Daemon.Tests;

public sealed class LayerTests
{
    [Fact]
    public void The_daemon_links_neither_kvm_nor_machine_nor_devices()
    {
        HashSet<string> seen = [];
        Queue<System.Reflection.AssemblyName> open = new([typeof(HostKvm).Assembly.GetName()]);
        while (open.TryDequeue(out System.Reflection.AssemblyName? name))
        {
            if (seen.Add(name.Name!))
            {
                foreach (System.Reflection.AssemblyName other in System.Reflection.Assembly.Load(name)
                    .GetReferencedAssemblies()
                    .Where(o => o.Name!.StartsWith("Vmm.", StringComparison.Ordinal)))
                {
                    open.Enqueue(other);
                }
            }
        }

        Assert.Contains("Vmm.Spec", seen);
        Assert.DoesNotContain("Vmm.Machine", seen);
        Assert.DoesNotContain("Vmm.Devices", seen);
        Assert.DoesNotContain("Vmm.Kvm", seen);
    }
}
