using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// The disk of a device that works gets into its top image what it sees through images below it, and goes on without those then. Steps are
/// taken one at a time.
/// </summary>
public sealed class BlkStream : IDisposable
{
    private readonly VirtioBlk _device;
    private readonly Qcow2Disk _disk;
    private readonly DiskStreamer _streamer;

    /// <summary>Begins; nothing is brought up yet.</summary>
    /// <param name="device">The device.</param>
    /// <param name="baseFile">The image on which its disk stands afterwards: the path, or the last part of that; null: none.</param>
    /// <exception cref="BlockException">It has no image, nothing to stream, or does not stand on that.</exception>
    public BlkStream(VirtioBlk device, string? baseFile)
    {
        _device = device;
        _disk = device.Disk as Qcow2Disk ?? throw new BlockException(
            BlockErrorKind.NotADisk, $"{device.Name} is no qcow2 image: there is nothing below it");
        _streamer = new DiskStreamer(_disk, baseFile);
    }

    /// <inheritdoc cref="DiskStreamer.TotalBytes"/>
    public ulong TotalBytes => _streamer.TotalBytes;

    /// <inheritdoc cref="DiskStreamer.Report"/>
    public MirrorReport Report => _streamer.Report;

    /// <summary>Starts the thread that copies.</summary>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; 0 is no limit.</param>
    /// <param name="threads">Runs the thread.</param>
    public void Start(ulong bytesPerSecond, IIoThreads threads) => _streamer.Start(bytesPerSecond, threads.Start, threads.Ready);

    /// <summary>
    /// The top's header names the image that stays, and the device goes on without those between; their files are closed. When this fails
    /// it goes on with all of them, and the disk is the same; the header may name the one or the other then.
    /// </summary>
    /// <param name="patience">How long storage may take with what is in flight.</param>
    /// <exception cref="BlockException">The stream or the host failed.</exception>
    /// <exception cref="TimeoutException">Requests in flight do not end.</exception>
    /// <exception cref="InvalidOperationException">Not everything is there.</exception>
    public void Finish(TimeSpan patience)
    {
        if (_streamer.Report.Problem is { } problem)
        {
            throw new BlockException(BlockErrorKind.Io, problem);
        }

        _streamer.ChangeBacking();
        IReadOnlyList<ImageLayer> gone = [];
        DiskSwitchPart part = new(_device, files =>
        {
            (IReadOnlyList<ImageLayer> stay, gone) = _streamer.Divide(files.Layers);
            return Qcow2Disk.Over(stay, _disk.Options);
        });
        DiskSwitch.Run([part], patience);
        foreach (ImageLayer layer in gone)
        {
            layer.File.Dispose();
        }

        _streamer.Dispose();
    }

    /// <summary>Gives it up; what was brought up stays, and is no loss.</summary>
    public void Dispose() => _streamer.Dispose();
}
