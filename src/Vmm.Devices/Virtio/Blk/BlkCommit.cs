using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// The disk of a device that works is committed into an image of its own chain, and goes on there. Steps are taken one at a time.
/// </summary>
// The mirror is the device's as long as it stands before the disk, and closed when it does not any more.
#pragma warning disable CA1001
public sealed class BlkCommit
#pragma warning restore CA1001
{
    private static readonly TimeSpan s_closing = TimeSpan.FromSeconds(30);

    private readonly VirtioBlk _device;
    private readonly DiskCommitter _committer;
    private readonly DiskMirror _mirror;
    private Task? _goesBack; // the device has the chain again; ends when nobody uses the mirror
    private Task? _left;

    private BlkCommit(VirtioBlk device, DiskCommitter committer, DiskMirror mirror) =>
        (_device, _committer, _mirror) = (device, committer, mirror);

    /// <summary>Bytes of the disk.</summary>
    public ulong TotalBytes => _mirror.Geometry.CapacityBytes;

    /// <summary>How far it is.</summary>
    public MirrorReport Report => _mirror.Report;

    /// <summary>How the base's content lies in its file.</summary>
    public ImageFormat Format => _committer.Format;

    /// <summary>Images below the base, the nearest first.</summary>
    public IReadOnlyList<ImageLayer> Below => _committer.Below;

    /// <summary>Begins: a mirror stands before the disk when this returns.</summary>
    /// <param name="device">The device.</param>
    /// <param name="file">The base, opened with <see cref="RawFileBackend.OpenBase"/>; owned, also when this fails.</param>
    /// <param name="patience">How long storage may take with what is in flight.</param>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; 0 is no limit.</param>
    /// <param name="threads">Runs the thread that copies.</param>
    /// <exception cref="BlockException">It cannot be committed there: the device goes on with the disk that it has.</exception>
    /// <exception cref="TimeoutException">Requests in flight do not end; likewise.</exception>
    public static BlkCommit Begin(VirtioBlk device, RawFileBackend file, TimeSpan patience, ulong bytesPerSecond, IIoThreads threads)
    {
        DiskCommitter committer;
        try
        {
            committer = new DiskCommitter(device.Disk as Qcow2Disk ?? throw new BlockException(
                BlockErrorKind.NotADisk, $"{device.Name} is no qcow2 image, or is used by another job: there is nothing to commit"), file);
            DiskSwitch.Run([new DiskSwitchPart(device, committer.Over)], patience);
        }
        catch
        {
            file.Dispose();
            throw;
        }

        DiskMirror mirror = committer.Begin();
        BlkCommit commit = new(device, committer, mirror);
        try
        {
            _ = device.ExchangeAsync(mirror, patience); // the direct way to the disk is closed meanwhile
        }
        catch
        {
            commit.Cancel(patience);
            throw;
        }

        mirror.Start(bytesPerSecond, threads.Start, threads.Ready);
        return commit;
    }

    /// <summary>From now on nothing is answered that only one of the two disks has: somebody writes down which one counts.</summary>
    /// <exception cref="BlockException">The base is of no use.</exception>
    /// <exception cref="InvalidOperationException">Not everything is copied.</exception>
    public void Seal() => _mirror.Seal();

    /// <summary>The device goes on with the base; returns when the images above are closed, as far as that is in time.</summary>
    /// <param name="patience">How long storage may take with what is in flight.</param>
    /// <exception cref="BlockException">The base is of no use: the device goes on with the chain.</exception>
    /// <exception cref="TimeoutException">Requests in flight do not end: both go on as before.</exception>
    /// <exception cref="InvalidOperationException">It is not sealed.</exception>
    public void Finish(TimeSpan patience)
    {
        if (_mirror.Report is { State: MirrorState.Sealed, Problem: { } problem })
        {
            throw new BlockException(BlockErrorKind.Io, problem); // what waits for the decision would keep the queues from draining
        }

        Leave(_device.ExchangeAsync(_committer.Target, patience, () =>
        {
            _ = _mirror.Finish();
            _committer.Commit();
        })).Wait(s_closing);
    }

    /// <summary>
    /// The device goes on with the chain, opened anew; the base is a base again, with what it got. It can be called again when it failed.
    /// </summary>
    /// <param name="patience">How long storage may take with what is in flight.</param>
    /// <exception cref="BlockException">The chain cannot be opened again: the device goes on with the one that it has.</exception>
    /// <exception cref="TimeoutException">Requests in flight do not end.</exception>
    public void Cancel(TimeSpan patience)
    {
        if (_mirror.Report.State != MirrorState.Ended)
        {
            _mirror.End();
        }

        _goesBack ??= ReferenceEquals(_device.Disk, _mirror) ? _device.ExchangeAsync(_committer.Source, patience) : Task.CompletedTask;
        _left ??= Leave(_goesBack);
        if (!_left.Wait(s_closing))
        {
            throw new TimeoutException($"{_device.Name}: requests in flight did not end in time");
        }

        // Its tables are those of the beginning, and what became free in the base since comes back with this.
        DiskSwitch.Run([new DiskSwitchPart(_device, _committer.GoBack)], patience);
    }

    // What is not the device's any more is closed when nobody has a node of it.
    private Task Leave(Task closed) =>
        closed.ContinueWith(_ => _mirror.Dispose(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
}
