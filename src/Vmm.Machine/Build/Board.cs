using Vmm.Devices.Bus;
using Vmm.LifeCycle;
using Vmm.Machine.Numa;
using Vmm.Machine.Ram;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Machine.Build;

/// <summary>
/// What the parts of one machine are connected to: buses, interrupts, memory, the host's side. It owns what was taken for the machine and
/// releases it in reverse order; memory goes after everything that could touch it.
/// </summary>
internal sealed class Board : IDisposable
{
    private readonly List<IDisposable> _owned = [];

    internal Board(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, Action<string>? note)
    {
        (Spec, Resources, Console, Note) = (spec, resources, console, note);
        Helpers = new HelperThreads(resources.Threads);
        DiskFaults = new DiskFaultNotifier(resources.Threads, TellDiskFault);
        DiskStalls = new DiskStalls(resources.Threads);
        End = Own(new MachineEnd());
    }

    /// <summary>The spec as it was at the start, with its vnodes.</summary>
    internal VmSpec Spec { get; }

    /// <summary>Where everything comes from.</summary>
    internal IMachineResources Resources { get; }

    /// <summary>Far side of the consoles.</summary>
    internal IConsoleEndpoint Console { get; }

    /// <summary>Takes remarks for the user; null when nobody reads them.</summary>
    internal Action<string>? Note { get; }

    /// <summary>I/O ports.</summary>
    internal AddressBus Ports { get; } = new("ports");

    /// <summary>Guest physical addresses that are not memory.</summary>
    internal AddressBus Mmio { get; } = new("MMIO");

    /// <summary>How the machine ends.</summary>
    internal MachineEnd End { get; }

    /// <summary>Where the vCPUs wait.</summary>
    internal PauseGate Gate { get; } = new();

    /// <summary>Threads for what a vCPU's may not do.</summary>
    internal HelperThreads Helpers { get; }

    /// <summary>Tells of disks that fail.</summary>
    internal DiskFaultNotifier DiskFaults { get; }

    /// <summary>Pauses the machine for disks that wait.</summary>
    internal DiskStalls DiskStalls { get; }

    /// <summary>Interrupts of devices.</summary>
    internal KvmInterrupts Interrupts { get; set; } = null!;

    /// <summary>Doorbells of devices.</summary>
    internal KvmDoorbells? Doorbells { get; set; }

    /// <summary>The guest's time.</summary>
    internal GuestClock Clock { get; set; } = null!;

    /// <summary>The guest's memory.</summary>
    internal MachineMemory Memory { get; set; } = null!;

    /// <summary>Port 0xCF9 amid the PCI configuration ports.</summary>
    internal Devices.Legacy.ResetControl? ResetControl { get; set; }

    /// <summary>The firmware that starts the machine; null: a kernel starts by itself.</summary>
    internal Firmware.FirmwareBoard? Firmware { get; set; }

    /// <summary>Who has guest memory has to ask a pager for it: it has a resident limit, or is restored lazily.</summary>
    internal bool IsPaged { get; set; }

    /// <summary>Called before the vCPUs of a restored machine run: everything else goes on.</summary>
    internal Action? Restored { get; set; }

    /// <summary>Where its vnodes live.</summary>
    internal VnodeHomes Homes { get; set; } = null!;

    /// <summary>The host fails requests of a disk.</summary>
    internal event EventHandler<DiskFaultEventArgs>? DiskFaulted;

    /// <summary>The guest resets the machine.</summary>
    internal void Reset() => End.Decide(new RunResult(ExitReason.Reset));

    /// <summary>Keeps it until the machine is gone.</summary>
    internal T Own<T>(T owned) where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Doorbells?.End();
        for (int i = _owned.Count - 1; i >= 0; i--)
        {
            _owned[i].Dispose();
        }

        _owned.Clear();
    }

    private void TellDiskFault(string disk, string path, Vmm.Storage.DiskStatus status)
    {
        string problem = status == Vmm.Storage.DiskStatus.NoSpace
            ? "the host's file system has no space left"
            : "the host fails its requests with I/O errors";
        Note?.Invoke($"{Spec.Name}: {disk} ({path}): {problem}; the guest gets I/O errors");
        DiskFaulted?.Invoke(this, new DiskFaultEventArgs(disk, status));
    }
}
