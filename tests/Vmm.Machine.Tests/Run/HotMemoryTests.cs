using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Memory that comes and goes while the guest runs, with the micro-guest mem.elf as its driver.</summary>
[Trait("Tier", "kvm")]
public sealed class HotMemoryTests
{
    [KvmFact]
    public void A_vnode_grows_and_shrinks_and_its_memory_goes_back_to_the_host_over_pci() => GrowAndShrink(VirtioTransport.Pci, 406);

    [KvmFact]
    public void A_vnode_grows_and_shrinks_and_its_memory_goes_back_to_the_host_over_mmio() => GrowAndShrink(VirtioTransport.Mmio, 414);

    [KvmFact]
    public void A_guest_that_keeps_memory_is_told_of_truthfully()
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Growing("mem", 64, 200, "keep=32"), terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        machine.SetVnodeMemory(0, ByteSize.MiB(64 + 40));
        terminal.WaitFor("NOW mib=40");
        machine.SetVnodeMemory(0, ByteSize.MiB(64));
        terminal.WaitFor("NOW mib=32 device=32");
        Assert.Equal((ByteSize.MiB(64), ByteSize.MiB(96)), (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Present));
        terminal.Type("q");
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void Memory_below_the_start_size_belongs_to_a_device_too_and_nothing_else_can_be_asked()
    {
        using Terminal terminal = new();
        VmSpec spec = Growing("mem", 128, 256, "keep=0") with { MinMemory = ByteSize.MiB(96) };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("NOW mib=32 device=32");
        Assert.Equal(
            new VnodeMemoryState(0, ByteSize.MiB(96), ByteSize.MiB(256), ByteSize.MiB(128), ByteSize.MiB(128), true)
            {
                Block = ByteSize.MiB(2)
            },
            machine.VnodeStates.Single());
        foreach ((int vnode, ulong mib) in new[] { (1, 128UL), (-1, 128UL), (0, 94UL), (0, 258UL), (0, 129UL) })
        {
            Assert.Throws<VnodeMemoryException>(() => machine.SetVnodeMemory(vnode, ByteSize.MiB(mib)));
        }

        machine.SetVnodeMemory(0, ByteSize.MiB(96));
        terminal.WaitFor("NOW mib=0 device=0");
        terminal.Type("q");
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void Below_what_it_started_with_a_single_vnode_goes_by_balloon_and_comes_back()
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("balloon") with
        {
            Memory = ByteSize.MiB(160),
            MaxMemory = ByteSize.MiB(192),
            Balloon = new BalloonSpec { Target = ByteSize.MiB(4) }
        };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("FILLED");
        Assert.Equal((ByteSize.MiB(160), ByteSize.MiB(160)), (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Present));
        machine.SetVnodeMemory(0, ByteSize.MiB(96));
        // asked at once, there when the guest did it
        Assert.Equal(
            (ByteSize.MiB(96), ByteSize.MiB(160), ByteSize.MiB(64)),
            (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Present, machine.VnodeStates[0].Below));
        terminal.Type("\n");
        terminal.WaitFor("INFLATED target=16384");
        Assert.Equal((ByteSize.MiB(96), ByteSize.MiB(96)), (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Present));
        Assert.Contains(
            "with its balloon from 2MiB on",
            Assert.Throws<VnodeMemoryException>(() => machine.SetVnodeMemory(0, ByteSize.MiB(1))).Message,
            StringComparison.Ordinal);
        Assert.Throws<VnodeMemoryException>(() => machine.SetVnodeMemory(0, new ByteSize((90 << 20) + 512)));
        Assert.Throws<VnodeMemoryException>(() => machine.SetVnodeMemory(0, ByteSize.MiB(194)));
        Assert.Equal(ByteSize.MiB(96), machine.VnodeStates[0].Asked); // what is refused changes nothing

        // Up again: the balloon's own target stands again, and what the guest has not taken back is not there.
        machine.SetVnodeMemory(0, ByteSize.MiB(160));
        Assert.Equal(4UL << 20, machine.Balloon!.Info().TargetBytes);
        Assert.Equal((ByteSize.MiB(160), ByteSize.MiB(100)), (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Present));
        terminal.Type("\n");
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
        Assert.Equal((ByteSize.MiB(160), ByteSize.MiB(160)), (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Present));

        // A size of its own for the balloon ends what a size of the vnode made of it.
        machine.SetVnodeMemory(0, ByteSize.MiB(150));
        machine.SetBalloon(8 << 20);
        Assert.Equal(
            (ByteSize.MiB(160), ByteSize.Zero, 8UL << 20),
            (machine.VnodeStates[0].Asked, machine.VnodeStates[0].Below, machine.Balloon.Info().TargetBytes));
    }

    [KvmFact]
    public void Without_a_balloon_or_with_several_vnodes_less_than_the_start_is_refused_with_the_reason()
    {
        using Terminal terminal = new();
        using (VirtualMachine machine = VirtualMachine.Create(Growing("mem", 128, 256, ""), terminal))
        {
            Assert.Contains(
                "below that only a balloon reaches",
                Assert.Throws<VnodeMemoryException>(() => machine.SetVnodeMemory(0, ByteSize.MiB(64))).Message,
                StringComparison.Ordinal);
            Assert.Contains(
                "has no balloon", Assert.Throws<VnodeMemoryException>(() => machine.SetBalloon(1 << 20)).Message, StringComparison.Ordinal);
        }

        VmSpec two =
            GuestSpec("mem") with
            {
                Memory = ByteSize.MiB(128),
                Cpus = 2,
                Balloon = new BalloonSpec(),
                Numa =
                    new NumaSpec
                    {
                        Vnodes =
                        [
                            new VnodeSpec { Cpus = [0], Memory = ByteSize.MiB(64) }, new VnodeSpec { Cpus = [1], Memory = ByteSize.MiB(64) }
                        ]
                    }
            };
        using VirtualMachine several = VirtualMachine.Create(two, terminal);
        Assert.Contains(
            "takes pages from whichever vnode the guest likes",
            Assert.Throws<VnodeMemoryException>(() => several.SetVnodeMemory(1, ByteSize.MiB(32))).Message,
            StringComparison.Ordinal);
        several.SetBalloon(16 << 20);
        Assert.All(several.VnodeStates, v => Assert.Equal((ByteSize.MiB(64), ByteSize.MiB(64)), (v.Asked, v.Present)));
    }

    private static void GrowAndShrink(VirtioTransport transport, ulong most)
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Growing("mem", 64, most, "") with { VirtioTransport = transport }, terminal);
        ulong hot = (most - 64) << 20; // a size that no other mapping of this process has
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("MEM start=0x100000000 size=" + hot);
        terminal.WaitFor("NOW mib=0");
        foreach (ulong mib in new ulong[] { 2, 40, most - 64, 6, 0, 50, 0 })
        {
            machine.SetVnodeMemory(0, ByteSize.MiB(64 + mib));
            terminal.WaitFor($"NOW mib={mib} device={mib}");
            terminal.Forget();
            // The guest touched every 16th page of what it has; the rest of the region holds nothing of the host.
            Assert.InRange(ResidentKilobytes(hot, "vnode0.hot"), (long)mib << 6, ((long)mib << 6) + 64);
            Assert.Equal(ByteSize.MiB(64 + mib), machine.VnodeStates[0].Present);
        }

        terminal.Type("q");
        Assert.True(run.Join(60_000));
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, terminal.Said);
    }

    private static VmSpec Growing(string guest, ulong memory, ulong most, string cmdline)
    {
        VmSpec spec = GuestSpec(guest);
        return spec with { Memory = ByteSize.MiB(memory), MaxMemory = ByteSize.MiB(most), Boot = spec.Boot with { Cmdline = cmdline } };
    }
}
