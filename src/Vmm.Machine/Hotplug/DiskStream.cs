using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>A disk of a running machine that is streamed: see <see cref="BlkStream"/>.</summary>
public sealed class DiskStream : IDiskJob, IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly AttachedDevice _device;
    private readonly BlkStream _stream;

    private DiskStream(AttachedDevice device, string? baseFile) =>
        (_device, _stream) = (device, new BlkStream((VirtioBlk)device.Device, baseFile));

    /// <inheritdoc/>
    public string Device => _device.Id;

    /// <inheritdoc/>
    public ulong TotalBytes => _stream.TotalBytes;

    /// <inheritdoc/>
    public MirrorReport Report => _stream.Report;

    /// <inheritdoc/>
    public bool IsGone => _device.Gone.IsCompleted;

    /// <summary>Begins: the thread is at work when this returns.</summary>
    /// <exception cref="BlockException">The disk has nothing to stream, or does not stand on the base.</exception>
    internal static DiskStream Begin(AttachedDevice device, string? baseFile, ulong bytesPerSecond, IIoThreads threads)
    {
        DiskStream stream = new(device, baseFile);
        stream._stream.Start(bytesPerSecond, threads);
        return stream;
    }

    /// <summary>Nothing has to be written down: before and after the last step the chain that the top's header names is right.</summary>
    public void Seal()
    {
    }

    /// <inheritdoc/>
    public void Finish()
    {
        _stream.Finish(s_patience);
        _device.IsCopied = false;
    }

    /// <inheritdoc/>
    public void Cancel()
    {
        Dispose();
        _device.IsCopied = false;
    }

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();
}
