using System.Text;
using Vmm.Devices.Virtio.Pmem;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Persistent memory of whole machines: a file that the guest maps.</summary>
[Trait("Tier", "kvm")]
public sealed class PmemTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-pmem-").FullName;

    private string Image => Path.Combine(_folder, "image");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public void What_the_guest_writes_into_its_memory_is_in_the_file()
    {
        MakeImage();
        Assert.Contains("config=1 text=written by the host", Run(readOnly: false), StringComparison.Ordinal);
        byte[] content = File.ReadAllBytes(Image);
        Assert.Equal("written by the guest", Encoding.ASCII.GetString(content, 1 << 20, 20));
    }

    [KvmFact]
    public void The_memory_moves_with_its_BAR()
    {
        MakeImage();
        Assert.Contains("MOVED text=written by the guest", Run(readOnly: false, "move=3355443200"), StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_read_only_file_stays_as_it_is()
    {
        MakeImage();
        byte[] before = File.ReadAllBytes(Image);
        Assert.Contains("text=written by the host", Run(readOnly: true), StringComparison.Ordinal);
        Assert.Equal(before, File.ReadAllBytes(Image));
    }

    [KvmFact]
    public void A_disk_reads_right_into_it()
    {
        MakeImage();
        byte[] sector = new byte[1 << 20];
        "of a disk"u8.CopyTo(sector);
        string disk = Path.Combine(_folder, "disk");
        File.WriteAllBytes(disk, sector);
        Assert.Contains(
            "DISK text=of a disk", Run(readOnly: false, "disk=1", new DiskSpec { Path = disk, ReadOnly = true }), StringComparison.Ordinal);
        Assert.Equal("of a disk", Encoding.ASCII.GetString(File.ReadAllBytes(Image), 3 << 19, 9));
    }

    [KvmFact]
    public void A_file_has_one_writer()
    {
        MakeImage();
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Spec(readOnly: false), terminal);
        BlockException refused = Assert.Throws<BlockException>(() => VirtualMachine.Create(Spec(readOnly: true), terminal));
        Assert.Contains("is being written by ", refused.Message, StringComparison.Ordinal);
    }

    private void MakeImage()
    {
        byte[] content = new byte[2 * VirtioPmem.Granule];
        "written by the host"u8.CopyTo(content);
        File.WriteAllBytes(Image, content);
    }

    private VmSpec Spec(bool readOnly) => GuestSpec("pmem") with { Devices = [new PmemSpec { Path = Image, ReadOnly = readOnly }] };

    private string Run(bool readOnly, string arguments = "", params DiskSpec[] disks)
    {
        using Terminal terminal = new();
        VmSpec spec = Spec(readOnly) with { Disks = disks };
        using VirtualMachine machine = VirtualMachine.Create(spec with { Boot = spec.Boot with { Cmdline = arguments } }, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.True(run.Join(60_000));
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, terminal.Said);
        return terminal.Said;
    }
}
