using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Machine.Resources;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Machine.Hotplug;

/// <summary>An empty differencing disk that becomes the top of a disk of a running machine.</summary>
/// <param name="Device">Name of the disk.</param>
/// <param name="File">The image, opened and locked; the machine's from when it is used, also when that fails.</param>
public sealed record DiskOverlay(string Device, RawFileBackend File);

/// <summary>
/// Puts differencing disks on disks of a running machine, all at one instant: what was the top is a base from then on, which nobody writes.
/// </summary>
internal sealed class DiskSnapshot : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly List<(AttachedDevice Device, RawImageFile Overlay, IReadOnlyList<ImageLayer>[] Bases)> _disks = [];
    private readonly Qcow2DiskOptions _options;
    private bool _isTaken;

    private DiskSnapshot(Qcow2DiskOptions options) => _options = options;

    /// <summary>Takes it.</summary>
    /// <param name="name">The machine, for errors.</param>
    /// <param name="table">Its devices.</param>
    /// <param name="overlays">A new image for each disk; owned.</param>
    /// <param name="cut">What was written to them is pending from this instant on, for those that have a change log.</param>
    /// <param name="note">Takes remarks on the disks; null when nobody reads them.</param>
    /// <param name="threads">Starts and confines the threads of the images' tables; null: they are threads as others.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out, or being copied.</exception>
    /// <exception cref="BlockException">A disk cannot have one more image; nothing was changed.</exception>
    /// <exception cref="TimeoutException">A disk hangs; nothing was changed.</exception>
    internal static void Take(
        string name, DeviceTable table, IReadOnlyList<DiskOverlay> overlays, bool cut, Action<string>? note, IIoThreads? threads)
    {
        using DiskSnapshot snapshot = new(DiskFiles.ImageOptions(note, threads));
        int added = 0;
        try
        {
            lock (table.Gate)
            {
                foreach (DiskOverlay overlay in overlays)
                {
                    snapshot.Add(name, table, overlay);
                    added++;
                }
            }

            snapshot.Switch(cut);
        }
        finally
        {
            overlays.Skip(added).ToList().ForEach(overlay => overlay.File.Dispose());
        }
    }

    /// <summary>Others may change the disks again; what no disk was made of is closed.</summary>
    public void Dispose()
    {
        foreach ((AttachedDevice device, RawImageFile overlay, _) in _disks)
        {
            device.IsCopied = false;
            if (!_isTaken)
            {
                overlay.Dispose();
            }
        }
    }

    // Under the lock of the devices.
    private void Add(string name, DeviceTable table, DiskOverlay overlay)
    {
        AttachedDevice device = table.FindPluggable(overlay.Device) is { Device: VirtioBlk } disk ? disk : throw new HotplugException(
            HotplugProblem.NoSuchDevice, $"{name} has no disk {overlay.Device}");
        if (table.IsOver || device.Removing || device.IsCopied)
        {
            throw new HotplugException(HotplugProblem.Busy, $"{overlay.Device} is on its way out, is being copied, or was named twice");
        }

        RawImageFile file;
        try
        {
            file = new RawImageFile(overlay.File);
        }
        catch (KernelException cause)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {overlay.File.Path}: {cause.Message}", cause) { Path = overlay.File.Path };
        }

        device.IsCopied = true;
        _disks.Add((device, file, [[]]));
    }

    private void Switch(bool cut)
    {
        DiskSwitch.Run(
            [.. _disks.Select(disk => new DiskSwitchPart((VirtioBlk)disk.Device.Device, old => Over(disk, old)))],
            s_patience,
            cut ? Cut : null);
        _isTaken = true;
        foreach ((AttachedDevice device, RawImageFile overlay, IReadOnlyList<ImageLayer>[] bases) in _disks)
        {
            DiskSpec before = device.DiskSpec!;
            device.DiskSpec = before with
            {
                Path = overlay.Path,
                Format = DiskFormat.Qcow2,
                Backing = [new BackingSpec(before.Path, before.Format), .. before.Backing ?? []],
            };
            (bases[0][0].File as RawImageFile)?.BecomeBase();
        }
    }

    // Every queue of every disk is drained, and what was written is stable.
    private void Cut() => _disks.ForEach(disk => ((VirtioBlk)disk.Device.Device).Log?.Cut());

    private Qcow2Disk Over(in (AttachedDevice Device, RawImageFile Overlay, IReadOnlyList<ImageLayer>[] Bases) disk, DetachedDisk old)
    {
        disk.Bases[0] = old.Layers;
        return old.Layers.Count >= DiskImageChain.MostImages
            ? throw new BlockException(
                BlockErrorKind.NotADisk, $"{disk.Device.Id} has a chain of {old.Layers.Count} images, and can have no more: commit some")
            : Qcow2Disk.Over([new ImageLayer(disk.Overlay, ImageFormat.Qcow2), .. old.Layers], _options);
    }
}
