using Vmm.Devices.Pci;
using Vmm.LifeCycle;
using Vmm.Machine.Description;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Disks that come and go while the micro-guest hotplug.elf runs.</summary>
[Trait("Tier", "kvm")]
public sealed class HotplugTests : HotplugBench
{
    [KvmFact]
    public async Task Disks_come_and_go_and_their_slots_and_files_are_free_again()
    {
        using VirtualMachine machine = Machine("", disks: 1);
        Thread run = Start(machine, out Func<RunResult> result);
        Terminal.WaitFor("READY slots=0x2"); // disk0; rng in slot 2 stays
        for (int round = 0; round < 20; round++)
        {
            PluggedDevice first = Add(machine, $"a{round % 2}", 8), second = Add(machine, "b", 16);
            Assert.Equal((3, 4, $"disk{1 + (2 * round)}"), (first.Address!.Value.Slot, second.Address!.Value.Slot, first.Name));
            Terminal.WaitFor("ADDED slot=3 mib=8");
            Terminal.WaitFor("ADDED slot=4 mib=16");
            Assert.Equal(["disk0", first.Name, second.Name], machine.Devices.Select(d => d.Name));
            Assert.Equal([8L << 20, 16L << 20], machine.Spec.Disks.Skip(1).Select(d => new FileInfo(d.Path).Length));
            Assert.All(machine.Counters.Disks.Skip(1), d => Assert.True(d.Counters.Writes >= 128 && d.Counters.Errors == 0));

            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, second.Name));
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, first.Name));
            Terminal.WaitFor("EJECTED slot=3");
            using (RawFileBackend.Open(first.Disk!.Path, new RawFileOptions())) { } // its lock is free
            Assert.Equal("disk0", machine.Devices.Single().Name);
            Terminal.Forget();
            Assert.All(OpenFiles(), file => Assert.EndsWith("cold0", file, StringComparison.Ordinal));
        }

        Finish(run, result);
    }

    [KvmFact]
    public async Task A_machine_that_is_rebuilt_has_every_disk_under_its_name_in_its_slot()
    {
        MachineDescription description;
        using (VirtualMachine machine = Machine("", disks: 2))
        {
            Thread run = Start(machine, out Func<RunResult> result);
            Terminal.WaitFor("READY slots=0x6");
            PluggedDevice third = Add(machine, "a", 8), fourth = Add(machine, "b", 16);
            Terminal.WaitFor($"ADDED slot={fourth.Address!.Value.Slot} mib=16");
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, third.Name));
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, "disk0"));
            description = MachineDescriptionJson.Read(MachineDescriptionJson.Write(machine.Description));
            Assert.Equal([("disk1", 2), ("disk3", fourth.Address.Value.Slot)], Disks(machine));
            Finish(run, result);
        }

        using Terminal other = new();
        using VirtualMachine rebuilt = VirtualMachine.CreateWithoutBoot(description, new PathResources(), other, prepared: null);
        Assert.Equal([("disk1", 2), ("disk3", 5)], Disks(rebuilt));
        Assert.Equal(["disk1", "disk3", "rng"], rebuilt.Description.Devices.Select(d => d.Id).Order(StringComparer.Ordinal));
        Assert.Equal((4, 0b10_1100U), (rebuilt.Description.NextDisk, rebuilt.Slots.Bridge.Taken(0) & 0b11_1110)); // rng in slot 3
        Assert.Equal(description.Spec.Disks.Select(d => d.Path), rebuilt.Spec.Disks.Select(d => d.Path));

        static IEnumerable<(string Id, int Slot)> Disks(VirtualMachine machine) =>
            machine.Description.Devices.Where(d => d.Kind is "blk").Select(d => (d.Id, d.Pci!.Value.Slot));
    }

    [KvmFact]
    public async Task A_guest_that_keeps_a_disk_is_told_of_truthfully_and_a_late_eject_counts()
    {
        using VirtualMachine machine = Machine("keep=1", disks: 0);
        List<DeviceRemovedEventArgs> removed = [];
        using SemaphoreSlim gone = new(0);
        machine.DeviceRemoved += (_, e) =>
        {
            removed.Add(e);
            gone.Release();
        };
        Thread run = Start(machine, out Func<RunResult> result);
        PluggedDevice disk = Add(machine, "a", 8);
        Terminal.WaitFor("ADDED slot=");
        Assert.Equal(RemovalOutcome.Refused, await machine.RemoveAsync(disk.Name, TimeSpan.FromSeconds(2), force: false, default));
        Terminal.WaitFor("KEPT slot=");
        Assert.Equal((true, 0), (machine.Devices.Single().Removing, removed.Count));
        Terminal.Type("v");
        Terminal.WaitFor("VERIFIED slot="); // it works on
        Terminal.Type("e");
        Assert.True(await gone.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.Equal((disk.Name, RemovalOutcome.Removed), (removed.Single().Device.Name, removed.Single().Outcome));
        Assert.Empty(machine.Devices);
        Finish(run, result);
    }

    [KvmFact]
    public async Task Force_takes_a_disk_under_load_and_the_guest_finds_an_empty_slot()
    {
        using VirtualMachine machine = Machine("keep=1", disks: 0);
        Thread run = Start(machine, out Func<RunResult> result);
        PluggedDevice disk = Add(machine, "a", 8);
        Terminal.WaitFor("ADDED slot=");
        Terminal.Type("w");
        Terminal.WaitFor("WRITING slot=");
        Assert.Equal(RemovalOutcome.Forced, await machine.RemoveAsync(disk.Name, TimeSpan.FromMilliseconds(200), force: true, default));
        using (RawFileBackend.Open(disk.Disk!.Path, new RawFileOptions())) { }
        Terminal.WaitFor("GONE slot=");
        PluggedDevice next = Add(machine, "a", 8);
        Assert.Equal((disk.Address, "disk1"), (next.Address, next.Name));
        Terminal.WaitFor("ADDED slot=");
        Finish(run, result);
    }

    /// <summary>The BAR is assigned inside the bridge's window; requests are DMA through the bridge.</summary>
    [KvmFact]
    public async Task Disks_behind_a_bridge_come_work_and_go()
    {
        using VirtualMachine machine = Machine("", disks: 32);
        Thread run = Start(machine, out Func<RunResult> result);
        Terminal.WaitFor("READY");
        Assert.Equal(new PciAddress(1, 2), machine.Devices[^1].Address);
        for (int round = 0; round < 3; round++)
        {
            PluggedDevice disk = Add(machine, "a", 8);
            Assert.Equal("01:04.0", disk.Address.ToString()); // behind rng
            Terminal.WaitFor("ADDED bus=1 slot=4 mib=8");
            Assert.All(machine.Counters.Disks.Skip(32), d => Assert.True(d.Counters.Writes >= 128 && d.Counters.Errors == 0));
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, disk.Name));
            Terminal.WaitFor("EJECTED bus=1 slot=4");
            Terminal.Forget();
        }

        Assert.Equal(RemovalOutcome.Removed, await Remove(machine, "disk31")); // there before the guest
        Terminal.WaitFor("EJECTED bus=1 slot=2");
        Finish(run, result);
    }

    /// <summary>As stock Linux between its scan of the bus and its driver of the generic event device.</summary>
    [KvmFact]
    public void An_interrupt_while_its_pin_is_masked_waits_for_the_guest()
    {
        VmSpec spec = GuestSpec("lateirq") with { Memory = ByteSize.MiB(64) };
        using VirtualMachine machine = VirtualMachine.Create(spec, Terminal);
        Add(machine, "before", 1); // before the first instruction
        Thread run = Start(machine, out Func<RunResult> result);
        for (int round = 0; round < 3; round++)
        {
            Terminal.WaitFor("MASKED");
            Terminal.Forget();
            if (round > 0)
            {
                Add(machine, $"late{round}", 1);
            }

            Terminal.Type("u");
            Terminal.WaitFor($"SEEN added=0x{1 << (2 + round):x}"); // rng has slot 1
        }

        Assert.True(run.Join(60_000), Terminal.Said);
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, $"{result()}: {Terminal.Said}");
    }

    [KvmFact]
    public async Task What_cannot_be_removed_or_added_is_refused_with_its_reason()
    {
        VmSpec spec = Spec("", disks: 1) with { VirtioTransport = VirtioTransport.Mmio };
        using VirtualMachine machine = VirtualMachine.Create(spec, Terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.Equal(HotplugProblem.NoSuchDevice, (await Assert.ThrowsAsync<HotplugException>(() => Remove(machine, "disk7"))).Problem);
        Assert.Equal(HotplugProblem.NotHotpluggable, (await Assert.ThrowsAsync<HotplugException>(() => Remove(machine, "disk0"))).Problem);
        DiskSpec mmio = Disk("m", 1) with { Transport = VirtioTransport.Mmio };
        Assert.Equal(HotplugProblem.NotHotpluggable, Assert.Throws<HotplugException>(() => machine.AddDisk(mmio, Open(mmio))).Problem);
        using (Open(mmio)) { } // closed all the same
        Finish(run, result);
        Assert.Equal(
            HotplugProblem.Ended, Assert.Throws<HotplugException>(() => machine.AddDisk(Disk("m", 1), Open(Disk("m", 1)))).Problem);
        Assert.Equal(HotplugProblem.Ended, (await Assert.ThrowsAsync<HotplugException>(() => Remove(machine, "disk0"))).Problem);
    }

    [KvmFact]
    public async Task Slots_run_out_with_a_reason_and_the_end_of_the_vm_ends_a_removal()
    {
        using VirtualMachine machine = Machine("keep=1", disks: 0);
        for (int i = 0; i < 28 + 64; i++) // rng has a slot of bus 0, the bridges have two
        {
            PluggedDevice disk = Add(machine, $"d{i}", 1);
            Assert.Equal(i < 28 ? new PciAddress(0, i + 2) : new PciAddress(1 + ((i - 28) / 32), (i - 28) % 32), disk.Address);
        }

        DiskSpec more = Disk("more", 1);
        Assert.Equal(HotplugProblem.NoSlot, Assert.Throws<HotplugException>(() => machine.AddDisk(more, Open(more))).Problem);
        Thread run = Start(machine, out Func<RunResult> result);
        Terminal.WaitFor("ADDED slot=29");
        Terminal.WaitFor("ADDED bus=1 slot=31");
        Terminal.WaitFor("ADDED bus=2 slot=31");
        Task<RemovalOutcome> removal = machine.RemoveAsync("disk3", TimeSpan.FromMinutes(1), force: false, default);
        Terminal.WaitFor("KEPT slot=");
        Assert.Equal(HotplugProblem.Busy, (await Assert.ThrowsAsync<HotplugException>(() => Remove(machine, "disk3"))).Problem);
        Finish(run, result);
        Assert.Equal(HotplugProblem.Ended, (await Assert.ThrowsAsync<HotplugException>(() => removal)).Problem);
    }

    [KvmFact]
    public async Task A_disk_that_is_taken_the_moment_it_comes_goes()
    {
        using VirtualMachine machine = Machine("", disks: 0);
        using CancellationTokenSource over = new();
        Task remover = Task.Run(async () =>
        {
            while (!over.IsCancellationRequested)
            {
                if (machine.Devices is [{ Removing: false } disk, ..])
                {
                    try
                    {
                        await machine.RemoveAsync(disk.Name, TimeSpan.Zero, force: true, default).WaitAsync(TimeSpan.FromSeconds(30));
                    }
                    catch (HotplugException gone) when (gone.Problem == HotplugProblem.NoSuchDevice)
                    {
                    }
                }
            }
        });
        for (int round = 0; round < 400 && !remover.IsCompleted; round++)
        {
            Add(machine, "a", 1);
            while (machine.Devices.Count > 0 && !remover.IsCompleted)
            {
                await Task.Yield();
            }
        }

        await over.CancelAsync();
        await remover;
        Assert.Empty(machine.Devices);
    }

    /// <summary>Files of this test that this process has open.</summary>
    private List<string> OpenFiles()
    {
        List<string> files = [];
        foreach (string descriptor in Directory.GetFiles("/proc/self/fd"))
        {
            if (new FileInfo(descriptor).LinkTarget is { } target && target.StartsWith(Folder, StringComparison.Ordinal))
            {
                files.Add(target);
            }
        }

        return files;
    }

    private VmSpec Spec(string cmdline, int disks)
    {
        VmSpec spec = GuestSpec("hotplug");
        return spec with
        {
            Memory = ByteSize.MiB(64),
            Disks = [.. Enumerable.Range(0, disks).Select(i => Disk($"cold{i}", 4))],
            Boot = spec.Boot with { Cmdline = cmdline }
        };
    }

    private VirtualMachine Machine(string cmdline, int disks) => VirtualMachine.Create(Spec(cmdline, disks), Terminal);
}
