using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>How a disk of a running machine is copied.</summary>
/// <param name="BytesPerSecond">Most bytes to copy in a second; 0 is no limit.</param>
/// <param name="TopOnly">Only what the top image has itself; the target stands on the same images below.</param>
public readonly record struct CopyRequest(ulong BytesPerSecond = 0, bool TopOnly = false);

/// <summary>
/// A disk of a running machine that is copied to another storage, to go on there. One thread at a time, but for <see cref="Report"/>.
/// </summary>
// The mirror is the device's as long as it stands before the disk, and closed when it does not any more.
#pragma warning disable CA1001
public sealed class DiskCopy : IDiskJob
#pragma warning restore CA1001
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10), s_closing = TimeSpan.FromSeconds(30);

    private readonly AttachedDevice _device;
    private readonly VirtioBlk _disk;
    private readonly IDiskBackend _source, _target;
    private readonly DiskMirror _mirror;
    private readonly DiskSpec _spec;

    private DiskCopy(AttachedDevice device, DiskSpec spec, IDiskBackend target, bool topOnly)
    {
        (_device, _disk, _spec, _target) = (device, (VirtioBlk)device.Device, spec, target);
        _source = _disk.Disk;
        _mirror = new DiskMirror(_source, target, topOnly);
    }

    /// <summary>Name of the disk.</summary>
    public string Device => _device.Id;

    /// <summary>Bytes of the disk.</summary>
    public ulong TotalBytes => _mirror.Geometry.CapacityBytes;

    /// <summary>How far it is.</summary>
    public MirrorReport Report => _mirror.Report;

    /// <summary>The disk is gone from the machine, and the copy with it.</summary>
    public bool IsGone => _device.Gone.IsCompleted;

    /// <summary>Begins: the mirror stands before the disk when this returns. The target is owned, also when this fails.</summary>
    /// <exception cref="BlockException">The target does not fit.</exception>
    /// <exception cref="TimeoutException">The disk hangs.</exception>
    internal static DiskCopy Begin(AttachedDevice device, DiskSpec spec, IDiskBackend target, CopyRequest wish, IIoThreads threads)
    {
        DiskCopy copy;
        try
        {
            copy = new DiskCopy(device, spec, target, wish.TopOnly);
        }
        catch
        {
            target.Dispose();
            throw;
        }

        try
        {
            _ = copy._disk.ExchangeAsync(copy._mirror, s_patience); // the old way to the disk is closed meanwhile
        }
        catch
        {
            copy._mirror.Abandon(); // queues may have nodes of it that they are about to drop
            throw;
        }

        copy._mirror.Start(wish.BytesPerSecond, threads.Start, threads.Ready);
        return copy;
    }

    /// <summary>From now on nothing is answered that only one of the two disks has: somebody writes down which one counts.</summary>
    /// <exception cref="BlockException">The target is of no use.</exception>
    /// <exception cref="InvalidOperationException">Not everything is copied.</exception>
    public void Seal() => _mirror.Seal();

    /// <summary>The machine goes on with the target; returns when the old disk is closed, as far as it does that in time.</summary>
    /// <exception cref="BlockException">The target is of no use: the machine goes on with the old disk.</exception>
    /// <exception cref="TimeoutException">Requests in flight do not end: both disks go on as before.</exception>
    /// <exception cref="InvalidOperationException">It is not sealed.</exception>
    public void Finish()
    {
        if (_mirror.Report is { State: MirrorState.Sealed, Problem: { } problem })
        {
            throw new BlockException(BlockErrorKind.Io, problem); // what waits for the decision would keep the queues from draining
        }

        Task closed = _disk.ExchangeAsync(_target, s_patience, () => _mirror.Finish());
        _device.DiskSpec = _spec;
        End(closed);
    }

    /// <summary>The machine goes on with the disk that it has; the target is closed. Nothing happens when the disk is gone.</summary>
    /// <exception cref="TimeoutException">Requests in flight do not end: it can be cancelled again.</exception>
    public void Cancel()
    {
        if (IsGone)
        {
            return;
        }

        if (_mirror.Report.State != MirrorState.Ended)
        {
            _mirror.End();
        }

        End(_disk.ExchangeAsync(_source, s_patience));
    }

    // The disk that is not the machine's any more is closed when nobody has a node of it.
    private void End(Task closed)
    {
        _device.IsCopied = false;
        Task disposed = closed.ContinueWith(
            _ => _mirror.Dispose(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        disposed.Wait(s_closing);
    }
}
