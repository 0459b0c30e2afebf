using System.Buffers.Binary;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Machines whose disk is a qcow2 image: the guest verifies what it reads, qemu-img what is in the file afterwards.</summary>
[Trait("Tier", "kvm")]
public sealed class Qcow2DiskTests : IDisposable
{
    private const string Size = "32M";

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-q2-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData(VirtioTransport.Pci, DiskCache.Direct)]
    [InlineData(VirtioTransport.Mmio, DiskCache.Buffered)]
    public void A_guest_verifies_an_image_of_its_own(VirtioTransport transport, DiskCache cache)
    {
        QemuImg.Run("create", "-f", "qcow2", At("disk.qcow2"), Size);
        string said = Run(Disk("disk.qcow2") with { Cache = cache, Transport = transport, Queues = 2 });
        Assert.Contains("sectors=65536", said, StringComparison.Ordinal); // the disk's capacity, not the file's
        QemuImg.Run("check", At("disk.qcow2"));
    }

    [KvmFact]
    public void A_guest_writes_into_the_top_of_a_chain_and_into_nothing_below()
    {
        QemuImg.Run("create", "-f", "raw", At("root.img"), Size);
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", "root.img", At("one.qcow2"));
        string first = Run(Disk("one.qcow2"));
        Assert.Contains("verify=ok", first, StringComparison.Ordinal);
        QemuImg.Run("create", "-f", "qcow2", "-o", "cluster_size=4k", "-F", "qcow2", "-b", "one.qcow2", At("two.qcow2"));
        (byte[] root, byte[] one) = (File.ReadAllBytes(At("root.img")), File.ReadAllBytes(At("one.qcow2")));
        Run(Disk("two.qcow2"), "seed=7");
        Assert.Equal(root, File.ReadAllBytes(At("root.img")));
        Assert.Equal(one, File.ReadAllBytes(At("one.qcow2")));
        QemuImg.Run("check", At("one.qcow2"));
        QemuImg.Run("check", At("two.qcow2"));
    }

    /// <summary>Clusters of 4 KiB: each discard of this guest is whole clusters, which read as zeros on both.</summary>
    [KvmFact]
    public void The_same_guest_leaves_the_same_content_on_a_chain_as_on_a_raw_disk()
    {
        QemuImg.Run("create", "-f", "raw", At("raw.img"), Size);
        QemuImg.Run("create", "-f", "qcow2", At("base.qcow2"), Size);
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("middle.qcow2"));
        QemuImg.Run("create", "-f", "qcow2", "-o", "cluster_size=4k", "-F", "qcow2", "-b", "middle.qcow2", At("top.qcow2"));
        Run(Disk("raw.img", DiskFormat.Raw), "requests=3000");
        Run(Disk("top.qcow2"), "requests=3000");
        QemuImg.Run("compare", "-f", "raw", "-F", "qcow2", At("raw.img"), At("top.qcow2"));
        QemuImg.Run("check", At("top.qcow2"));
    }

    /// <summary>
    /// The old hole of VMMs that guess (CVE-2008-2004): a guest writes a qcow2 header that names a file of the host, and reads that after a
    /// restart.
    /// </summary>
    [KvmFact]
    public void A_raw_disk_stays_raw_whatever_a_guest_writes_to_its_first_sector()
    {
        File.WriteAllText(At("secret"), "secret of the host");
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", At("secret"), At("header"), "64M", "-u");
        byte[] disk = new byte[32 << 20];
        File.ReadAllBytes(At("header")).CopyTo(disk, 0);
        File.WriteAllBytes(At("disk.qcow2"), disk); // even with this name
        List<string> notes = [];
        string said = Run(Disk("disk.qcow2", DiskFormat.Raw), notes: notes);
        Assert.Contains("sectors=65536", said, StringComparison.Ordinal); // 32 MiB, not the 64 of the header
        Assert.Contains(notes, note => note.Contains("disk.qcow2 is attached as raw", StringComparison.Ordinal)
            && note.Contains("say format: qcow2", StringComparison.Ordinal));
        Assert.Equal(32 << 20, new FileInfo(At("disk.qcow2")).Length);
    }

    [KvmFact]
    public void Two_machines_share_a_base_and_nobody_writes_it_meanwhile()
    {
        QemuImg.Run("create", "-f", "qcow2", At("base.qcow2"), Size);
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("a.qcow2"));
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("b.qcow2"));
        using Terminal terminal = new(), other = new();
        using VirtualMachine a = VirtualMachine.Create(Spec("blk", Disk("a.qcow2")), terminal);
        using VirtualMachine b = VirtualMachine.Create(Spec("blk", Disk("b.qcow2")), other);
        BlockException refused = Assert.Throws<BlockException>(
            () => VirtualMachine.Create(Spec("blk", Disk("base.qcow2")), other).Dispose());
        Assert.Equal(BlockErrorKind.InUse, refused.Kind);
        Thread first = Start(a, out Func<RunResult> one), second = Start(b, out Func<RunResult> two);
        first.Join();
        second.Join();
        Assert.Equal((ExitReason.DebugExit, ExitReason.DebugExit), (one().Reason, two().Reason));
        Assert.Contains("verify=ok", terminal.Said, StringComparison.Ordinal);
        Assert.Contains("verify=ok", other.Said, StringComparison.Ordinal);
    }

    [KvmFact]
    public async Task An_image_is_plugged_in_and_comes_out_whole_and_unlocked()
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("hotplug");
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY");
        for (int round = 0; round < 3; round++)
        {
            string name = $"{round}.qcow2";
            QemuImg.Run("create", "-f", "qcow2", At(name), "8M");
            DiskSpec disk = Disk(name);
            PluggedDevice plugged = machine.AddDisk(disk, new PathResources().OpenDisk(0, disk));
            terminal.WaitFor($"ADDED slot={plugged.Address!.Value.Slot} mib=8");
            if (round == 2)
            {
                terminal.Type("w"); // it writes without end until the disk is taken
                await Task.Delay(200);
                Assert.Equal(RemovalOutcome.Forced, await machine.RemoveAsync(plugged.Name, TimeSpan.Zero, true, CancellationToken.None));
                terminal.WaitFor("GONE");
            }
            else
            {
                Assert.Equal(
                    RemovalOutcome.Removed,
                    await machine.RemoveAsync(plugged.Name, TimeSpan.FromSeconds(30), false, CancellationToken.None));
            }

            QemuImg.Run("check", At(name));
            RawFileBackend.Open(At(name), new RawFileOptions { IsImage = true }).Dispose(); // nothing is locked any more
            terminal.Forget();
        }

        terminal.Type("q");
        run.Join();
        Assert.Equal(ExitReason.DebugExit, result().Reason);
    }

    [KvmFact]
    public async Task A_saved_machine_goes_on_with_the_chain_that_it_had_and_with_no_other()
    {
        QemuImg.Run("create", "-f", "qcow2", At("base.qcow2"), Size);
        QemuImg.Run("create", "-f", "qcow2", At("other.qcow2"), Size);
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("top.qcow2"));
        string saved = At("saved");
        using (Terminal terminal = new())
        using (VirtualMachine machine = VirtualMachine.Create(Spec("blk", Disk("top.qcow2")), terminal))
        {
            Thread run = Start(machine, out _);
            terminal.WaitFor("DISK");
            await MachineSave.SaveAsync(machine, saved, TimeSpan.FromSeconds(60), goOn: false);
            machine.Dispose();
            run.Join();
        }

        QemuImg.Run("check", At("top.qcow2"));
        QemuImg.Run("rebase", "-u", "-F", "qcow2", "-b", "other.qcow2", At("top.qcow2"));
        using Terminal next = new();
        BlockException refused = Assert.Throws<BlockException>(
            () => SavedMachine.Read(saved).Restore(new PathResources(), next).Dispose());
        Assert.Contains("was rebased", refused.Message, StringComparison.Ordinal);
        Assert.Contains(At("base.qcow2"), refused.Message, StringComparison.Ordinal);
        Assert.Contains(At("other.qcow2"), refused.Message, StringComparison.Ordinal);
        VmSpec now = DiskFiles.WithBacking(Spec("blk", Disk("top.qcow2")));
        Assert.Contains(
            "was rebased",
            Assert.Throws<StateException>(() => SavedMachine.Read(saved).RequireSameDisks(now)).Message,
            StringComparison.Ordinal);

        QemuImg.Run("rebase", "-u", "-F", "qcow2", "-b", "base.qcow2", At("top.qcow2"));
        using (VirtualMachine restored = SavedMachine.Read(saved).Restore(new PathResources(), next))
        {
            Thread goesOn = Start(restored, out Func<RunResult> result);
            goesOn.Join();
            Assert.Equal(ExitReason.DebugExit, result().Reason);
            (int code, string said) = QemuImg.Try("check", At("top.qcow2"));
            Assert.True(code != 0 && said.Contains("lock", StringComparison.Ordinal), said); // QEMU's tools see that it is in use
        }

        Assert.Contains("verify=ok", next.Said, StringComparison.Ordinal);
        QemuImg.Run("check", At("top.qcow2"));
    }

    [KvmFact]
    public void An_image_that_is_marked_damaged_or_no_image_is_refused_by_name()
    {
        QemuImg.Run("create", "-f", "qcow2", At("disk.qcow2"), Size);
        byte[] bytes = File.ReadAllBytes(At("disk.qcow2"));
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(72), 2); // corrupt
        File.WriteAllBytes(At("disk.qcow2"), bytes);
        using Terminal terminal = new();
        foreach (string name in (string[])["disk.qcow2", "raw.img"])
        {
            File.WriteAllBytes(At("raw.img"), new byte[1 << 20]);
            BlockException refused = Assert.Throws<BlockException>(
                () => VirtualMachine.Create(Spec("blk", Disk(name)), terminal).Dispose());
            Assert.Contains(At(name), refused.Message, StringComparison.Ordinal);
            RawFileBackend.Open(At(name), new RawFileOptions { IsImage = true }).Dispose();
        }
    }

    private static string Run(DiskSpec disk, string arguments = "", List<string>? notes = null)
    {
        using Terminal terminal = new();
        VmSpec spec = Spec("blk", disk);
        using VirtualMachine machine = VirtualMachine.Create(
            spec with { Boot = spec.Boot with { Cmdline = arguments } }, terminal, notes is null ? null : notes.Add);
        Thread run = Start(machine, out Func<RunResult> result);
        run.Join();
        Assert.True(result() is { Reason: ExitReason.DebugExit, ExitCode: 0 }, $"{result().Reason} {result().Message}\n{terminal.Said}");
        return terminal.Said;
    }

    private string At(string name) => Path.Combine(_folder, name);

    private DiskSpec Disk(string name, DiskFormat format = DiskFormat.Qcow2) => new() { Path = At(name), Format = format };

    private static VmSpec Spec(string guest, DiskSpec disk) => GuestSpec(guest) with { Disks = [disk] };
}
