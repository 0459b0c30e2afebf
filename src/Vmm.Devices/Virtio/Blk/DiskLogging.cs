using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Puts a change log before the disk of a device that works, or takes it away: every queue is held and drained, every thread makes its node
/// anew, and all go on. No write is between the two.
/// </summary>
public static class DiskLogging
{
    /// <summary>Changes the log. Any thread, one at a time for each device, and no job of the disk goes on.</summary>
    /// <param name="device">The device.</param>
    /// <param name="log">The log, which the device owns when this returns; null: none.</param>
    /// <param name="patience">How long storage may take with what is in flight, and to make it stable.</param>
    /// <returns>The log that it had, which is the caller's; null: none.</returns>
    /// <exception cref="TimeoutException">Storage took longer: everything goes on as before.</exception>
    /// <exception cref="BlockException">What was written cannot be made stable, or the host has no resources: likewise.</exception>
    /// <exception cref="ObjectDisposedException">The device is gone.</exception>
    public static ChangeLog? Set(VirtioBlk device, ChangeLog? log, TimeSpan patience)
    {
        ChangeLog? before = device.Log;
        DiskSwitchSide side = DiskSwitchSide.Of(device);
        try
        {
            Deadline deadline = new(patience);
            side.FlushAhead();
            side.AwaitFlushed(deadline);
            do
            {
                side.Hold();
                side.AwaitQuiet(deadline);
            }
            while (!side.TryStandStill()); // a driver may activate its device anew at any time
        }
        catch
        {
            side.GoOn();
            throw;
        }

        try
        {
            side.BeginClose();
            side.EndClose();
            device.Log = log;
            side.MakeNodes();
            return before;
        }
        catch
        {
            device.Log = before;
            _ = side.GoBack();
            throw;
        }
        finally
        {
            side.GoOn();
        }
    }
}
