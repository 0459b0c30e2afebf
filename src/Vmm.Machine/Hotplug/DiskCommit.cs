using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>
/// A disk of a running machine that is committed into an image of its chain, to go on there: see <see cref="BlkCommit"/>. One thread at a
/// time, but for <see cref="Report"/>.
/// </summary>
public sealed class DiskCommit : IDiskJob
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly AttachedDevice _device;
    private readonly BlkCommit _commit;
    private readonly string _base;

    private DiskCommit(AttachedDevice device, string baseFile, BlkCommit commit) =>
        (_device, _base, _commit) = (device, baseFile, commit);

    /// <inheritdoc/>
    public string Device => _device.Id;

    /// <inheritdoc/>
    public ulong TotalBytes => _commit.TotalBytes;

    /// <inheritdoc/>
    public MirrorReport Report => _commit.Report;

    /// <inheritdoc/>
    public bool IsGone => _device.Gone.IsCompleted;

    /// <summary>Begins: the mirror stands before the disk when this returns.</summary>
    /// <exception cref="BlockException">It cannot be committed there.</exception>
    /// <exception cref="TimeoutException">The disk hangs.</exception>
    internal static DiskCommit Begin(AttachedDevice device, RawFileBackend file, ulong bytesPerSecond, IIoThreads threads) =>
        new(device, file.Path, BlkCommit.Begin((VirtioBlk)device.Device, file, s_patience, bytesPerSecond, threads));

    /// <inheritdoc/>
    public void Seal() => _commit.Seal();

    /// <inheritdoc/>
    public void Finish()
    {
        _commit.Finish(s_patience);
        bool isRaw = _commit.Format == ImageFormat.Raw;
        _device.DiskSpec = _device.DiskSpec! with
        {
            Path = _base,
            Format = isRaw ? DiskFormat.Raw : DiskFormat.Qcow2,
            Backing = isRaw ? null : [.. _commit.Below.Select(layer => new BackingSpec(
                layer.File.Path, layer.Format == ImageFormat.Raw ? DiskFormat.Raw : DiskFormat.Qcow2))],
        };
        _device.IsCopied = false;
    }

    /// <inheritdoc/>
    public void Cancel()
    {
        if (!IsGone)
        {
            _commit.Cancel(s_patience);
            _device.IsCopied = false;
        }
    }
}
