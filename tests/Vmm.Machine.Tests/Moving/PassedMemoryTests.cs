using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Moving;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Machine.Tests.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Machine.Tests.Moving.MovingKit;
using Terminal = Vmm.Machine.Tests.Run.Terminal;

namespace Vmm.Machine.Tests.Moving;

/// <summary>Machines that go on in another process of their host with the memory that they have, not with a copy.</summary>
[Trait("Tier", "kvm")]
public sealed class PassedMemoryTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-passed-").FullName;
    private readonly List<string> _said = [];

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public void A_guest_that_rewrites_and_checks_its_memory_goes_on_with_the_same_pages()
    {
        MovedGuest guest = MovedGuest.Start(Guest("dirty", "mib=8 rate=20000 seconds=6 tsc_khz=2500000"), "READY dirty");
        for (int i = 0; i < 3; i++)
        {
            guest = Move(guest, _said, channels: 1, SameMemory, passes: true);
        }

        RunResult result = guest.Join();
        _said.Add(guest.Terminal.Said);
        guest.Dispose();
        Assert.True(result.ExitCode == 0, string.Concat(_said));
        Assert.DoesNotContain("CORRUPT", string.Concat(_said), StringComparison.Ordinal);
    }

    // Behind the hand-over the machine is built elsewhere over the same pages, and may be given up still: it writes nothing before it runs.
    [KvmTheory]
    [InlineData(DiskFormat.Raw)]
    [InlineData(DiskFormat.Qcow2)]
    public void A_machine_that_was_built_and_given_up_changed_no_page(DiskFormat format)
    {
        string disk = Path.Combine(_folder, "disk");
        QemuImg.Run("create", "-f", format == DiskFormat.Raw ? "raw" : "qcow2", disk, "16M");
        MovedGuest guest = MovedGuest.Start(
            Guest("blk", "requests=0") with { Disks = [new DiskSpec { Path = disk, Format = format, Queues = 1 }], Rng = true }, "DISK");
        for (int i = 0; i < 4; i++)
        {
            BuildAndGiveUp(guest.Machine);
            guest = Move(guest, _said, channels: 2, passes: true);
        }

        guest.Terminal.Type("q");
        RunResult result = guest.Join();
        _said.Add(guest.Terminal.Said);
        guest.Dispose();
        Assert.True(result.ExitCode == 0, string.Concat(_said));
        Assert.Contains("RESULT blk verify=ok", string.Concat(_said), StringComparison.Ordinal);
        if (format == DiskFormat.Qcow2)
        {
            QemuImg.Run("check", disk);
        }
    }

    [KvmFact]
    public void Memory_that_was_plugged_goes_along_and_comes_and_goes_on()
    {
        VmSpec spec = Guest("mem", "") with { Memory = ByteSize.MiB(64), MaxMemory = ByteSize.MiB(128) };
        MovedGuest guest = MovedGuest.Start(spec, "NOW mib=0");
        guest.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + 8));
        guest.Terminal.WaitFor("NOW mib=8 device=8");
        guest = Move(guest, _said, channels: 3, SameMemory, passes: true);
        guest.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + 16)); // the guest fails when new memory is not zero
        guest.Terminal.WaitFor("NOW mib=16 device=16");
        guest.Terminal.Type("q");
        Assert.True(guest.Join().ExitCode == 0, guest.Terminal.Said);
        guest.Dispose();
    }

    [KvmFact]
    public void Another_machine_and_a_receiver_that_takes_no_memory_refuse_it_by_name_and_the_guest_goes_on()
    {
        using MovedGuest guest = MovedGuest.Start(Guest("dirty", "mib=4 rate=2000 seconds=0 tsc_khz=2500000"), "READY dirty");
        VmSpec spec = guest.Machine.Spec;
        Refused(guest.Machine, spec with { Memory = ByteSize.MiB(64) }, mayPass: true, "here it was admitted with");
        Refused(guest.Machine, spec, mayPass: false, "a frame (Memory) that does not belong there");
        guest.Terminal.Forget();
        guest.Terminal.WaitFor("TICK");
        Assert.DoesNotContain("CORRUPT", guest.Terminal.Said, StringComparison.Ordinal);
    }

    private static void Refused(VirtualMachine machine, VmSpec admitted, bool mayPass, string why)
    {
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(1);
        using IncomingMachine incoming = IncomingMachine.Begin(admitted, receive, PlainIoThreads.Instance, mayPass);
        using MachineMove move = MachineMove.Begin(machine, send, Wish with { PassMemory = true });
        Await(() => move.Progress.Phase == MovePhase.Failed, () => $"{move.Progress}");
        Assert.Contains(why, move.Progress.Problem, StringComparison.Ordinal);
        Assert.Equal(VmState.Running, machine.State);
    }

    private static void BuildAndGiveUp(VirtualMachine machine)
    {
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(1);
        using IncomingMachine incoming = IncomingMachine.Begin(machine.Spec, receive, PlainIoThreads.Instance, mayPass: true);
        using MachineMove move = MachineMove.Begin(machine, send, Wish with { PassMemory = true });
        Await(() => move.Progress.Phase == MovePhase.Converged, () => $"{move.Progress}");
        move.Stop(Long);
        Assert.InRange(move.Progress.SentBytes, 1UL, 1UL << 20);
        Await(() => incoming.IsComplete, () => incoming.Problem ?? "not complete");
        uint[] before = Sums(machine);
        using (Terminal terminal = new())
        using (VirtualMachine built = incoming.Build(machine.Spec, new PathResources(), terminal, prepared: null))
        {
            Assert.Equal(before, Sums(built));
        }

        Assert.Equal(before, Sums(machine));
        move.GiveUp();
        Assert.Equal(VmState.Running, machine.State);
    }

    // A checksum for each MiB.
    private static uint[] Sums(VirtualMachine machine)
    {
        List<uint> sums = [];
        byte[] bytes = new byte[1 << 20];
        foreach (MemoryPart part in MemoryPart.Of(machine))
        {
            for (ulong at = 0; at < part.Bytes; at += (uint)bytes.Length)
            {
                part.Memory.CopyTo(at, bytes);
                sums.Add(Crc32C.Of(bytes));
            }
        }

        return [.. sums];
    }

    private static VmSpec Guest(string guest, string arguments)
    {
        VmSpec spec = GuestKit.GuestSpec(guest);
        return spec with { Boot = spec.Boot with { Cmdline = arguments } };
    }
}
