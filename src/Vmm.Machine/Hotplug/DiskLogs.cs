using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Machine.Hotplug;

/// <summary>Change logs before disks of a machine, whether it runs or not.</summary>
internal static class DiskLogs
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    /// <summary>Logs what is written to a disk from now on, or no more.</summary>
    /// <param name="name">The machine, for errors.</param>
    /// <param name="table">Its devices.</param>
    /// <param name="id">The disk.</param>
    /// <param name="file">The log's file; owned. Null: there is no log from now on.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out, or a job of it goes on.</exception>
    /// <exception cref="BlockException">The file is no log of this disk, or the disk failed: it goes on as it was.</exception>
    /// <exception cref="TimeoutException">The disk hangs: likewise.</exception>
    internal static void Set(string name, DeviceTable table, string id, FileDescriptorHandle? file)
    {
        if (file is null)
        {
            End(name, table, id);
        }
        else
        {
            Begin(name, table, id, file);
        }
    }

    /// <summary>Logs what is written to a disk from now on. One that it has is ended first.</summary>
    /// <param name="name">The machine, for errors.</param>
    /// <param name="table">Its devices.</param>
    /// <param name="id">The disk.</param>
    /// <param name="file">The log's file; owned.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out, or a job of it goes on.</exception>
    /// <exception cref="BlockException">The file is no log of this disk, or the disk failed: it goes on as it was.</exception>
    /// <exception cref="TimeoutException">The disk hangs: likewise.</exception>
    private static void Begin(string name, DeviceTable table, string id, FileDescriptorHandle file)
    {
        AttachedDevice device;
        try
        {
            device = Take(name, table, id);
        }
        catch
        {
            file.Dispose();
            throw;
        }

        ChangeLog? log = null;
        try
        {
            VirtioBlk disk = (VirtioBlk)device.Device;
            log = ChangeLog.Open(file, disk.Disk.Geometry.CapacityBytes);
            ChangeLog? before = DiskLogging.Set(disk, log, s_patience);
            log = null;
            before?.Dispose();
        }
        finally
        {
            log?.Dispose();
            device.IsCopied = false;
        }
    }

    /// <summary>Logs no more; nothing when there is no log.</summary>
    /// <param name="name">The machine, for errors.</param>
    /// <param name="table">Its devices.</param>
    /// <param name="id">The disk.</param>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out, or a job of it goes on.</exception>
    /// <exception cref="BlockException">The disk failed: it is logged still.</exception>
    /// <exception cref="TimeoutException">The disk hangs: likewise.</exception>
    private static void End(string name, DeviceTable table, string id)
    {
        AttachedDevice device = Take(name, table, id);
        try
        {
            VirtioBlk disk = (VirtioBlk)device.Device;
            if (disk.Log is not null)
            {
                DiskLogging.Set(disk, log: null, s_patience)?.Dispose();
            }
        }
        finally
        {
            device.IsCopied = false;
        }
    }

    // Nobody else changes the disk meanwhile.
    private static AttachedDevice Take(string name, DeviceTable table, string id)
    {
        lock (table.Gate)
        {
            AttachedDevice device = table.FindPluggable(id) is { Device: VirtioBlk } disk ? disk : throw new HotplugException(
                HotplugProblem.NoSuchDevice, $"{name} has no disk {id}");
            if (table.IsOver || device.Removing || device.IsCopied)
            {
                throw new HotplugException(HotplugProblem.Busy, $"{id} is on its way out, or a job of it goes on");
            }

            device.IsCopied = true;
            return device;
        }
    }
}
