using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Moving;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Tests.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using VirtioTransport = Vmm.Spec.VirtioTransport;
using static Vmm.Machine.Tests.Moving.MovingKit;

namespace Vmm.Machine.Tests.Moving;

/// <summary>Whole machines on the local KVM, moved from one to another while their guest works.</summary>
[Trait("Tier", "kvm")]
public sealed class MachineMoveTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-moves-").FullName;
    private readonly List<string> _said = [];

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData(1)]
    [InlineData(4)]
    public void A_guest_that_rewrites_and_checks_its_memory_goes_on_elsewhere_with_every_page(int channels)
    {
        MovedGuest guest = MovedGuest.Start(Guest("dirty", "mib=8 rate=20000 seconds=6 tsc_khz=2500000"), "READY dirty");
        for (int i = 0; i < 3; i++)
        {
            guest = Move(guest, _said, channels, SameMemory);
        }

        RunResult result = guest.Join();
        _said.Add(guest.Terminal.Said);
        guest.Dispose();
        Assert.True(result.ExitCode == 0, string.Concat(_said));
        Assert.DoesNotContain("CORRUPT", string.Concat(_said), StringComparison.Ordinal);
    }

    [KvmTheory]
    [InlineData(DiskFormat.Raw, VirtioTransport.Pci)]
    [InlineData(DiskFormat.Qcow2, VirtioTransport.Pci)]
    [InlineData(DiskFormat.Qcow2, VirtioTransport.Mmio)]
    public void A_guest_that_writes_its_disk_loses_nothing_in_moves_and_moves_that_were_given_up(
        DiskFormat format, VirtioTransport transport)
    {
        MovedGuest guest = MovedGuest.Start(Disk(format, "requests=0") with { VirtioTransport = transport }, "DISK");
        for (int i = 0; i < 4; i++)
        {
            GiveUpAfterHandOver(guest.Machine);
            guest = Move(guest, _said, channels: 2, SameMemory);
        }

        guest.Terminal.Type("q");
        RunResult result = guest.Join();
        _said.Add(guest.Terminal.Said);
        guest.Dispose();
        Assert.True(result.ExitCode == 0, string.Concat(_said));
        Assert.Contains("RESULT blk verify=ok", string.Concat(_said), StringComparison.Ordinal);
        if (format == DiskFormat.Qcow2)
        {
            QemuImg.Run("check", Path.Combine(_folder, "disk"));
        }
    }

    [KvmFact]
    public void Between_hand_over_and_cancel_the_disk_is_anybodys_and_a_cancel_that_comes_too_late_leaves_it_at_rest()
    {
        using MovedGuest guest = MovedGuest.Start(Disk(DiskFormat.Raw, "requests=0"), "DISK");
        string disk = Path.Combine(_folder, "disk");
        Assert.Equal(BlockErrorKind.InUse, Assert.Throws<BlockException>(() => RawFileBackend.Open(disk)).Kind);
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(1);
        using IncomingMachine incoming = IncomingMachine.Begin(guest.Machine.Spec, receive, PlainIoThreads.Instance);
        using MachineMove move = MachineMove.Begin(guest.Machine, send, Wish);
        Await(() => move.Progress.Phase == MovePhase.Converged, () => $"{move.Progress}");
        move.Stop(Long);
        using (RawFileBackend taken = RawFileBackend.Open(disk))
        {
            BlockException inUse = Assert.Throws<BlockException>(move.GiveUp);
            Assert.Equal(BlockErrorKind.InUse, inUse.Kind);
            Assert.Equal(MovePhase.HandedOver, move.Progress.Phase);
            Assert.Equal(VmState.Paused, guest.Machine.State);
        }

        move.GiveUp();
        Assert.Equal(MovePhase.GivenUp, move.Progress.Phase);
        Assert.Equal(VmState.Running, guest.Machine.State);
        Assert.Equal(BlockErrorKind.InUse, Assert.Throws<BlockException>(() => RawFileBackend.Open(disk)).Kind);
        guest.Terminal.Type("q");
        Assert.True(guest.Join().ExitCode == 0, guest.Terminal.Said);
    }

    [KvmFact]
    public void A_machine_that_ends_after_its_hand_over_touches_no_disk_any_more_and_waits_for_nothing()
    {
        using MovedGuest guest = MovedGuest.Start(Disk(DiskFormat.Qcow2, "requests=0"), "DISK");
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(1);
        using IncomingMachine incoming = IncomingMachine.Begin(guest.Machine.Spec, receive, PlainIoThreads.Instance);
        using MachineMove move = MachineMove.Begin(guest.Machine, send, Wish);
        move.Stop(Long); // before it has converged
        byte[] before = File.ReadAllBytes(Path.Combine(_folder, "disk"));
        move.Dispose();
        guest.Dispose();
        Assert.Equal(before, File.ReadAllBytes(Path.Combine(_folder, "disk")));
    }

    [KvmFact]
    public void A_channel_that_is_cut_anywhere_leaves_the_machine_running_and_the_receiver_with_nothing()
    {
        using MovedGuest guest = MovedGuest.Start(Disk(DiskFormat.Raw, "requests=0"), "DISK");
        long whole = MoveThrough(guest, long.MaxValue, out bool done);
        Assert.True(done);
        Random random = new(7);
        List<long> cuts = [0, 1, 31, 32, 55, 56, 87, 88, 89, whole - 1, whole - 31, whole - 32, whole - 33];
        cuts.AddRange(Enumerable.Range(0, 30).Select(_ => random.NextInt64(whole)));
        foreach (long cut in cuts)
        {
            long carried = MoveThrough(guest, cut, out done); // how the bytes are shared out among the channels differs
            Assert.True(!done || carried < cut, $"it went through a channel that was cut after {cut} bytes");
            Assert.Equal(VmState.Running, guest.Machine.State);
            Assert.Empty(guest.Machine.MapOwner.Discards.Reasons);
        }

        guest.Terminal.Type("q");
        Assert.True(guest.Join().ExitCode == 0, guest.Terminal.Said);
    }

    [KvmFact]
    public void A_guest_that_is_too_fast_is_slowed_down_until_it_fits_and_a_paused_one_stays_paused()
    {
        using MovedGuest guest = MovedGuest.Start(Guest("dirty", "mib=32 rate=0 seconds=0 tsc_khz=2500000"), "READY dirty");
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(1);
        using IncomingMachine incoming = IncomingMachine.Begin(guest.Machine.Spec, receive, PlainIoThreads.Instance);
        using MachineMove move = MachineMove.Begin(guest.Machine, send, new MoveWish(TimeSpan.FromMilliseconds(10), 20 << 20));
        Await(() => move.Progress.ThrottlePercent > 0, () => $"{move.Progress}");
        guest.Machine.Pause();
        Await(() => move.Progress.Phase == MovePhase.Converged, () => $"{move.Progress}");
        move.Stop(Long);
        Assert.Equal(0, move.Progress.ThrottlePercent);
        Await(() => incoming.IsComplete, () => incoming.Problem ?? "not complete");
        Assert.True(incoming.IsPaused);
        move.GiveUp();
        Assert.Equal(VmState.Paused, guest.Machine.State);
        guest.Machine.Resume();
        guest.Terminal.Forget();
        guest.Terminal.WaitFor("TICK");
        Assert.DoesNotContain("CORRUPT", guest.Terminal.Said, StringComparison.Ordinal);
    }

    [KvmFact]
    public void What_is_not_the_machine_that_was_admitted_is_refused_by_name_and_the_guest_goes_on()
    {
        using MovedGuest guest = MovedGuest.Start(Guest("dirty", "mib=4 rate=2000 seconds=0 tsc_khz=2500000"), "READY dirty");
        VmSpec spec = guest.Machine.Spec;
        Refused(guest, spec with { Memory = ByteSize.MiB(64) }, "that comes and goes; here it was admitted with");
        Refused(guest, spec with { Cpus = 2 }, "the VM has 1 vCPUs in 1 vnodes; here it was admitted with 2");
        guest.Terminal.Forget();
        guest.Terminal.WaitFor("TICK");
        Assert.DoesNotContain("CORRUPT", guest.Terminal.Said, StringComparison.Ordinal);
    }

    [KvmFact]
    public void Memory_that_was_plugged_moves_with_the_rest()
    {
        VmSpec spec = Guest("mem", "") with { Memory = ByteSize.MiB(64), MaxMemory = ByteSize.MiB(128) };
        MovedGuest guest = MovedGuest.Start(spec, "NOW mib=0");
        guest.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + 8));
        guest.Terminal.WaitFor("NOW mib=8 device=8");
        guest = Move(guest, _said, channels: 3, SameMemory);
        guest.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + 16)); // the guest fails when new memory is not zero
        guest.Terminal.WaitFor("NOW mib=16 device=16");
        guest.Terminal.Type("q");
        Assert.True(guest.Join().ExitCode == 0, guest.Terminal.Said);
        guest.Dispose();
    }

    private static void Refused(MovedGuest guest, VmSpec admitted, string why)
    {
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(2);
        using IncomingMachine incoming = IncomingMachine.Begin(admitted, receive, PlainIoThreads.Instance);
        using MachineMove move = MachineMove.Begin(guest.Machine, send, Wish);
        Await(() => move.Progress.Phase == MovePhase.Failed, () => $"{move.Progress}");
        Assert.Contains(why, move.Progress.Problem, StringComparison.Ordinal);
        Assert.Contains(why, incoming.Problem, StringComparison.Ordinal);
        Assert.Equal(VmState.Running, guest.Machine.State);
    }

    private static void GiveUpAfterHandOver(VirtualMachine machine)
    {
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(1);
        using IncomingMachine incoming = IncomingMachine.Begin(machine.Spec, receive, PlainIoThreads.Instance);
        using MachineMove move = MachineMove.Begin(machine, send, Wish);
        Await(() => move.Progress.Phase == MovePhase.Converged, () => $"{move.Progress}");
        move.Stop(Long);
        Assert.Equal(VmState.Paused, machine.State);
        move.GiveUp();
        Assert.Equal(VmState.Running, machine.State);
    }

    // One move through a relay that cuts; it is given up when it went through. How many bytes it had.
    private static long MoveThrough(MovedGuest guest, long cutAfter, out bool done)
    {
        (FileDescriptorHandle[] send, FileDescriptorHandle[] toRelay) = Channels(2);
        (FileDescriptorHandle[] fromRelay, FileDescriptorHandle[] receive) = Channels(2);
        using CuttingRelay first = new(toRelay[0], fromRelay[0], cutAfter), second = new(toRelay[1], fromRelay[1], long.MaxValue);
        using IncomingMachine incoming = IncomingMachine.Begin(guest.Machine.Spec, receive, PlainIoThreads.Instance);
        using MachineMove move = MachineMove.Begin(guest.Machine, send, Wish);
        try
        {
            Await(() => move.Progress.Phase is MovePhase.Converged or MovePhase.Failed, () => $"{move.Progress}");
            move.Stop(Long);
            done = true;
        }
        catch (MoveException)
        {
            Assert.Equal(MovePhase.Failed, move.Progress.Phase);
            done = false;
            Await(() => incoming.Problem is not null || incoming.IsComplete, () => "the receiver waits still");
        }

        move.GiveUp();
        return first.Carried;
    }

    private static VmSpec Guest(string guest, string arguments)
    {
        VmSpec spec = GuestKit.GuestSpec(guest);
        return spec with { Boot = spec.Boot with { Cmdline = arguments } };
    }

    private VmSpec Disk(DiskFormat format, string arguments)
    {
        string disk = Path.Combine(_folder, "disk");
        QemuImg.Run("create", "-f", format == DiskFormat.Raw ? "raw" : "qcow2", disk, "16M");
        return Guest("blk", arguments) with { Disks = [new DiskSpec { Path = disk, Format = format, Queues = 1 }], Rng = true };
    }
}
