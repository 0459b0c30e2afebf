using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>A disk that grows beneath a running guest.</summary>
[Trait("Tier", "kvm")]
public sealed class DiskGrowthTests : IDisposable
{
    private readonly string _disk = Path.GetTempFileName();

    public void Dispose() => File.Delete(_disk);

    [KvmTheory]
    [InlineData(VirtioTransport.Pci)]
    [InlineData(VirtioTransport.Mmio)]
    public void A_guest_sees_a_larger_disk_and_writes_to_its_new_end(VirtioTransport transport)
    {
        Resize(1 << 20);
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("blk") with { VirtioTransport = transport, Disks = [new DiskSpec { Path = _disk }] };
        using VirtualMachine machine = VirtualMachine.Create(
            spec with { Boot = spec.Boot with { Cmdline = "mode=grow" } }, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.True(SpinWait.SpinUntil(() => terminal.Said.Contains("READY sectors=2048", StringComparison.Ordinal), 60_000));
        Resize(5 << 20);
        Assert.Equal(5UL << 20, machine.RefreshDisk("disk0"));
        Assert.Throws<HotplugException>(() => machine.RefreshDisk("disk1"));
        run.Join();
        Assert.Contains("RESULT blk grow=ok sectors=10240", terminal.Said, StringComparison.Ordinal);
        Assert.Equal((ExitReason.DebugExit, 0), (result().Reason, result().ExitCode));
    }

    private void Resize(long bytes)
    {
        using FileStream file = new(_disk, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(bytes);
    }
}
