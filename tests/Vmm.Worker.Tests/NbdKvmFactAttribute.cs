using Vmm.Storage.Tests.Nbd;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>A test of a VM with a disk of qemu-nbd; skipped, with the reason, without KVM or that program.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class NbdKvmFactAttribute : FactAttribute
{
    public NbdKvmFactAttribute() => Skip = new KvmFactAttribute().Skip ?? NbdServer.WhyNot("qemu-nbd");
}
