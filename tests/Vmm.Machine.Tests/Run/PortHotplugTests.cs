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

/// <summary>Disks that come and go behind PCI Express root ports while the micro-guest ports.elf runs.</summary>
[Trait("Tier", "kvm")]
public sealed class PortHotplugTests : HotplugBench
{
    [KvmFact]
    public async Task Disks_come_work_and_go_and_their_ports_and_files_are_free_again()
    {
        using VirtualMachine machine = Machine("", disks: 1);
        Thread run = Start(machine, out Func<RunResult> result);
        Terminal.WaitFor("READY ports=16");
        for (int round = 0; round < 10; round++)
        {
            PluggedDevice first = Add(machine, $"a{round % 2}", 8), second = Add(machine, "b", 16);
            Assert.Equal((new PciAddress(2, 0), new PciAddress(3, 0)), (first.Address!.Value, second.Address!.Value));
            Terminal.WaitFor("ADDED bus=2 mib=8");
            Terminal.WaitFor("ADDED bus=3 mib=16");
            Assert.All(machine.Counters.Disks.Skip(1), d => Assert.True(d.Counters.Writes >= 64 && d.Counters.Errors == 0));
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, second.Name));
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, first.Name));
            Terminal.WaitFor("EJECTED bus=2");
            using (Open(first.Disk!)) { } // its lock is free
            Assert.Equal("disk0", machine.Devices.Single().Name);
            Terminal.Forget();
        }

        Assert.Equal(RemovalOutcome.Removed, await Remove(machine, "disk0")); // there before the guest
        Terminal.WaitFor("EJECTED bus=1");
        Finish(run, result);
    }

    [KvmFact]
    public async Task A_guest_that_keeps_a_disk_is_told_of_truthfully_and_a_late_eject_counts()
    {
        using VirtualMachine machine = Machine("keep=1", disks: 0);
        using SemaphoreSlim gone = new(0);
        RemovalOutcome? outcome = null;
        machine.DeviceRemoved += (_, e) =>
        {
            outcome = e.Outcome;
            gone.Release();
        };
        Thread run = Start(machine, out Func<RunResult> result);
        PluggedDevice disk = Add(machine, "a", 8);
        Terminal.WaitFor("ADDED bus=1");
        Assert.Equal(RemovalOutcome.Refused, await machine.RemoveAsync(disk.Name, TimeSpan.FromSeconds(1), force: false, default));
        Terminal.WaitFor("KEPT bus=1");
        Terminal.Type("v");
        Terminal.WaitFor("VERIFIED bus=1"); // it works on
        Terminal.Type("e");
        Assert.True(await gone.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.Equal((RemovalOutcome.Removed, 0), (outcome!.Value, machine.Devices.Count));
        Finish(run, result);
    }

    [KvmFact]
    public async Task A_disk_that_is_taken_is_gone_for_the_guest_and_its_port_takes_the_next()
    {
        using VirtualMachine machine = Machine("keep=1", disks: 0);
        Thread run = Start(machine, out Func<RunResult> result);
        PluggedDevice disk = Add(machine, "a", 8);
        Terminal.WaitFor("ADDED bus=1");
        Assert.Equal(RemovalOutcome.Forced, await machine.RemoveAsync(disk.Name, TimeSpan.FromMilliseconds(200), force: true, default));
        using (Open(disk.Disk!)) { }
        Terminal.WaitFor("GONE bus=1");
        PluggedDevice next = Add(machine, "a", 8);
        Assert.Equal((disk.Address, "disk1"), (next.Address, next.Name));
        Terminal.WaitFor("ADDED bus=1");
        Finish(run, result);
    }

    /// <summary>A guest that has not come to its ports finds their devices by itself; those without power are no hindrance.</summary>
    [KvmFact]
    public async Task Ports_run_out_with_a_reason_and_a_guest_that_never_gave_power_is_asked_nothing()
    {
        using VirtualMachine machine = Machine("", disks: 0);
        for (int i = 0; i < 16; i++)
        {
            Assert.Equal(new PciAddress(1 + i, 0), Add(machine, $"d{i}", 1).Address);
        }

        DiskSpec more = Disk("more", 1);
        HotplugException full = Assert.Throws<HotplugException>(() => machine.AddDisk(more, Open(more)));
        Assert.Equal(HotplugProblem.NoSlot, full.Problem);
        Assert.Contains("all 16 PCI Express ports", full.Message, StringComparison.Ordinal);
        Assert.Equal(RemovalOutcome.Removed, await Remove(machine, "disk3")); // before the first instruction
        Thread run = Start(machine, out Func<RunResult> result);
        foreach (int bus in (int[])[1, 3, 5, 16])
        {
            Terminal.WaitFor($"ADDED bus={bus} mib=1");
        }

        Assert.DoesNotContain("bus=4 ", Terminal.Said, StringComparison.Ordinal);
        Finish(run, result);
    }

    [KvmFact]
    public async Task A_machine_that_is_rebuilt_has_every_disk_behind_its_port()
    {
        MachineDescription description;
        using (VirtualMachine machine = Machine("", disks: 2))
        {
            Thread run = Start(machine, out Func<RunResult> result);
            Terminal.WaitFor("READY ports=16");
            PluggedDevice third = Add(machine, "a", 8);
            Terminal.WaitFor("ADDED bus=3");
            Assert.Equal(RemovalOutcome.Removed, await Remove(machine, "disk0"));
            description = MachineDescriptionJson.Read(MachineDescriptionJson.Write(machine.Description));
            Assert.Equal(new PciAddress(3, 0), third.Address);
            Finish(run, result);
        }

        using Terminal other = new();
        using VirtualMachine rebuilt = VirtualMachine.CreateWithoutBoot(description, new PathResources(), other, prepared: null);
        Assert.Equal([("disk1", "02:00.0"), ("disk2", "03:00.0")], rebuilt.Devices.Select(d => (d.Name, d.Address.ToString()!)));
        Assert.Equal((17, 0u, 1u), (rebuilt.Slots.Bridge.Buses, rebuilt.Slots.Bridge.Taken(1), rebuilt.Slots.Bridge.Taken(3)));
    }

    private VirtualMachine Machine(string cmdline, int disks)
    {
        VmSpec spec = GuestSpec("ports");
        return VirtualMachine.Create(
            spec with
            {
                Memory = ByteSize.MiB(64),
                Hotplug = HotplugWay.Pcie,
                Disks = [.. Enumerable.Range(0, disks).Select(i => Disk($"cold{i}", 4))],
                Boot = spec.Boot with { Cmdline = cmdline },
            },
            Terminal);
    }
}
