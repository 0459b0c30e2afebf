using System.Globalization;
using Vmm.LifeCycle;
using Vmm.Machine.Layout;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Interrupt pins of PCI functions through KVM's I/O APIC, with the micro-guest intx.elf.</summary>
public sealed class IntxTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-intx-").FullName;
    private readonly Terminal _terminal = new();

    public void Dispose()
    {
        _terminal.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [KvmTheory]
    [Trait("Tier", "kvm")]
    [InlineData(0, 20u)]  // slot 1 of bus 0
    [InlineData(17, 22u)] // one line is left for all
    public void A_disk_without_msix_interrupts_by_its_pin(int mmioDevices, uint pin)
    {
        DiskSpec[] disks = [Disk(0, VirtioTransport.Pci), .. Enumerable.Range(1, mmioDevices).Select(i => Disk(i, VirtioTransport.Mmio))];
        VmSpec spec = GuestSpec("intx");
        spec = spec with { Disks = disks, Boot = spec.Boot with { Cmdline = string.Create(CultureInfo.InvariantCulture, $"pin={pin}") } };
        using VirtualMachine machine = VirtualMachine.Create(spec, _terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.True(run.Join(90_000), _terminal.Said);
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, $"{result()}: {_terminal.Said}");
        Assert.Equal(5, File.ReadAllBytes(disks[0].Path)[5 * 4096]);
    }

    [Fact]
    public void Pins_are_below_hotplugs_and_none_of_virtio_mmios()
    {
        Assert.Equal((19u, 4), DeviceSlots.IntxGsis(0));
        Assert.Equal((19u, 4), DeviceSlots.IntxGsis(14));
        Assert.Equal((20u, 3), DeviceSlots.IntxGsis(15));
        Assert.Equal(0, DeviceSlots.IntxGsis(DeviceCount.MostMmio).Count);
        Assert.Equal((23u, 1), DeviceSlots.IntxGsis(DeviceCount.MostMmio, hasPorts: true)); // ports have a pin to tell by
    }

    private DiskSpec Disk(int number, VirtioTransport transport)
    {
        string path = Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"disk{number}"));
        File.WriteAllBytes(path, new byte[1 << 20]);
        return new DiskSpec { Path = path, Transport = transport };
    }
}
