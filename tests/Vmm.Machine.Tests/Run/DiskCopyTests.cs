using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>
/// The disk of a running guest is copied to another file, and the guest, which verifies all that it reads, goes on there.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class DiskCopyTests : IDisposable
{
    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-copy-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData(DiskCache.Direct, DiskCache.Buffered, 1)]
    [InlineData(DiskCache.Buffered, DiskCache.Direct, 2)]
    public void A_guest_goes_on_with_the_copy_and_finds_what_it_wrote(DiskCache from, DiskCache to, int queues)
    {
        using Terminal terminal = new();
        DiskSpec disk = Disk("old.img") with { Cache = from, Queues = queues };
        using VirtualMachine machine = VirtualMachine.Create(Spec(disk), terminal);
        Thread thread = Start(machine, out Func<RunResult> result);
        Assert.True(SpinWait.SpinUntil(() => machine.Counters.Disks.Single().Counters.Writes > 50, s_soon));
        DiskSpec next = Disk("new.img") with { Cache = to, Queues = queues };
        DiskCopy copy = machine.CopyDisk("disk0", next, new PathResources().OpenDisk(0, next));
        Assert.Throws<HotplugException>(() => machine.CopyDisk("disk0", next, new MemoryDiskBackend(1 << 20))); // one at a time
        Assert.True(SpinWait.SpinUntil(() => copy.Report.State == MirrorState.Mirrored, s_soon), $"{copy.Report}");
        copy.Seal();
        copy.Finish();
        Assert.True(thread.IsAlive, "the guest was over before its disk was copied");
        Assert.Equal(next.Path, machine.Devices.Single().Disk!.Path);
        Assert.Equal(next.Path, machine.Description.Spec.Disks.Single().Path);
        using (RawFileBackend.Open(disk.Path, new RawFileOptions())) { } // the old one is free
        byte[] old = File.ReadAllBytes(disk.Path);
        thread.Join();
        Assert.Equal(ExitReason.DebugExit, result().Reason);
        Assert.Contains("verify=ok", terminal.Said, StringComparison.Ordinal);
        Assert.Equal(old, File.ReadAllBytes(disk.Path));
    }

    [KvmFact]
    public void A_guest_whose_copy_is_given_up_notices_nothing()
    {
        using Terminal terminal = new();
        DiskSpec disk = Disk("old.img");
        using VirtualMachine machine = VirtualMachine.Create(Spec(disk), terminal);
        Thread thread = Start(machine, out Func<RunResult> result);
        Assert.True(SpinWait.SpinUntil(() => machine.Counters.Disks.Single().Counters.Writes > 50, s_soon));
        for (int round = 0; round < 3; round++)
        {
            DiskSpec next = Disk($"new{round}.img");
            CopyRequest slowly = new(BytesPerSecond: 4 << 20);
            DiskCopy copy = machine.CopyDisk("disk0", next, new PathResources().OpenDisk(0, next), slowly);
            Thread.Sleep(50);
            copy.Cancel();
            using (RawFileBackend.Open(next.Path, new RawFileOptions())) { } // the target is free
        }

        thread.Join();
        Assert.Equal(ExitReason.DebugExit, result().Reason);
        Assert.Contains("verify=ok", terminal.Said, StringComparison.Ordinal);
        Assert.Equal(disk.Path, machine.Devices.Single().Disk!.Path);
    }

    private static VmSpec Spec(DiskSpec disk)
    {
        VmSpec spec = GuestSpec("blk");
        return spec with { Boot = spec.Boot with { Cmdline = "requests=40000" }, Memory = ByteSize.MiB(64), Disks = [disk] };
    }

    private DiskSpec Disk(string name)
    {
        string path = Path.Combine(_folder, name);
        using FileStream file = File.Create(path);
        file.SetLength(32 << 20);
        return new DiskSpec { Path = path };
    }
}
