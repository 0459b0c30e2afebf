using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Disks of devices at rest that were let go of: everything is written and stable, the images are as if they were closed, their locks are
/// given up, and somebody else may use them. The files stay open: the disks can be taken back as long as nobody else has them.
/// </summary>
public sealed class DiskRelease
{
    private readonly List<DiskSwitchSide> _sides;

    private DiskRelease(List<DiskSwitchSide> sides) => _sides = sides;

    /// <summary>Lets go of the disks. Their devices are held, and their driver does not run.</summary>
    /// <param name="devices">The devices; one whose disk is a server's has nothing to let go of, and is only flushed.</param>
    /// <param name="patience">How long storage may take to make stable what was written.</param>
    /// <exception cref="TimeoutException">Storage took longer: all disks are as they were.</exception>
    /// <exception cref="BlockException">One cannot be let go of; likewise.</exception>
    public static DiskRelease Run(IReadOnlyList<VirtioBlk> devices, TimeSpan patience)
    {
        Deadline deadline = new(patience);
        DiskSwitchSide[] flushed = [.. devices.Where(each => each.Disk is not IDetachableDisk).Select(DiskSwitchSide.Of)];
        List<DiskSwitchSide> sides = [.. devices.Where(each => each.Disk is IDetachableDisk).Select(DiskSwitchSide.Of)];
        foreach (DiskSwitchSide side in flushed)
        {
            side.FlushAhead();
        }

        foreach (DiskSwitchSide side in flushed)
        {
            side.AwaitFlushed(deadline);
        }

        DiskRelease release = new(sides);
        try
        {
            sides.ForEach(side => side.Hold());
            sides.ForEach(side => side.AwaitQuiet(deadline));
            if (!sides.TrueForAll(side => side.TryStandStill()))
            {
                throw new BlockException(BlockErrorKind.Io, "a driver activated its disk while it was let go of");
            }
        }
        catch
        {
            sides.ForEach(side => side.GoOn());
            throw;
        }

        try
        {
            sides.ForEach(side => side.BeginClose());
            sides.ForEach(side => side.EndClose());
            sides.ForEach(side => side.LetGo());
            return release;
        }
        catch
        {
            release.TakeBack();
            throw;
        }
    }

    /// <summary>The disks are the devices' again, which go on when they are resumed.</summary>
    /// <exception cref="BlockException">Somebody else uses one, or it cannot be opened again. In the first case all stay let go, and this
    /// can be tried again.</exception>
    public void TakeBack()
    {
        _sides.ForEach(side => side.LockAgain()); // all, before anything is done to one
        List<string> lost = [.. _sides.Select(side => side.GoBack()).OfType<string>()];
        _sides.ForEach(side => side.GoOn());
        if (lost.Count > 0)
        {
            throw new BlockException(
                BlockErrorKind.Io, $"{string.Join("; ", lost)}: its requests fail until the VM is started again");
        }
    }
}
