using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>A device whose disk ends, and what comes behind it then.</summary>
/// <param name="Device">The device.</param>
/// <param name="Next">
/// Makes a disk of the files of the old one, and others perhaps (<see cref="Vmm.Storage.Qcow2.Qcow2Disk.Over"/>). When it throws, or
/// another step fails later, all files it was given are used for the way back; others stay the caller's.
/// </param>
public sealed record DiskSwitchPart(VirtioBlk Device, Func<DetachedDisk, IDetachableDisk> Next);

/// <summary>
/// Puts another disk that uses the same files behind devices that work, all at one instant: one more image on top, or fewer images. Two
/// disks cannot use one file at a time. So every queue is held and drained and what was written is made stable; then every thread closes
/// its node, the old disks end and give their files back, the new ones are made, every thread makes its node, and all go on. What a driver
/// asks for meanwhile waits in its ring. What goes wrong before the end takes everything back: the old disks are opened again in the same
/// files.
/// </summary>
public static class DiskSwitch
{
    /// <summary>Switches. Any thread, one at a time for each device; blocks for the host's calls.</summary>
    /// <param name="parts">The devices.</param>
    /// <param name="patience">How long storage may take with what is in flight, and to make it stable.</param>
    /// <param name="commit">
    /// Called when all new disks stand and no request went to one yet: from then on they count. When it throws, the old ones go on.
    /// </param>
    /// <exception cref="TimeoutException">Storage took longer: everything goes on as before.</exception>
    /// <exception cref="BlockException">
    /// A disk has no files to switch, cannot be made stable, or the new one is refused: the old ones go on. The message says so when one of
    /// them could not be opened again; all its requests fail then.
    /// </exception>
    /// <exception cref="ObjectDisposedException">A device is gone.</exception>
    public static void Run(IReadOnlyList<DiskSwitchPart> parts, TimeSpan patience, Action? commit = null)
    {
        List<DiskSwitchSide> sides = [.. parts.Select(part => new DiskSwitchSide(part))];
        try
        {
            Deadline deadline = new(patience);
            sides.ForEach(side => side.FlushAhead());
            sides.ForEach(side => side.AwaitFlushed(deadline));
            do
            {
                sides.ForEach(side => side.Hold());
                sides.ForEach(side => side.AwaitQuiet(deadline));
            }
            while (!sides.TrueForAll(side => side.TryStandStill())); // a driver may activate its device anew at any time
        }
        catch
        {
            sides.ForEach(side => side.GoOn());
            throw;
        }

        SwitchOver(sides, commit);
    }

    private static void SwitchOver(List<DiskSwitchSide> sides, Action? commit)
    {
        try
        {
            sides.ForEach(side => side.BeginClose());
            sides.ForEach(side => side.EndClose());
            sides.ForEach(side => side.Open());
            sides.ForEach(side => side.MakeNodes());
            commit?.Invoke();
        }
        catch (Exception cause)
        {
            List<string> lost = [.. sides.Select(side => side.GoBack()).OfType<string>()];
            if (lost.Count > 0)
            {
                throw new BlockException(
                    BlockErrorKind.Io,
                    $"{cause.Message}; and after that {string.Join("; ", lost)}: its requests fail until the VM is started again", cause);
            }

            throw;
        }
        finally
        {
            sides.ForEach(side => side.GoOn());
        }
    }
}
