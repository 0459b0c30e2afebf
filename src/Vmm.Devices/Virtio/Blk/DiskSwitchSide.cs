using System.Diagnostics;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>A moment after which nobody waits.</summary>
internal readonly struct Deadline(TimeSpan patience)
{
    private readonly long _begin = Stopwatch.GetTimestamp();

    internal bool IsOver => Stopwatch.GetElapsedTime(_begin) > patience;
}

/// <summary>One device of a <see cref="DiskSwitch"/>, step by step.</summary>
#pragma warning disable CA1001 // The device owns the disk that it goes on with.
internal sealed class DiskSwitchSide
#pragma warning restore CA1001
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(20); // at a thread that may have ended meanwhile

    private readonly VirtioBlk _device;
    private readonly Func<DetachedDisk, IDetachableDisk>? _make;
    private readonly IDiskBackend _old;
    private readonly Dictionary<BlkThread, SwitchStep> _held = [];
    private List<(BlkThread Thread, SwitchStep Step)> _steps = [];
    private DetachedDisk? _files;
    private IDetachableDisk? _next;
    private IDiskBackend _now; // what the device goes on with
    private bool _standsStill;

    /// <exception cref="BlockException">The disk has no files to switch.</exception>
    internal DiskSwitchSide(DiskSwitchPart part)
    {
        (_device, _make) = (part.Device, part.Next);
        _old = _now = _device.Disk as IDetachableDisk ?? throw new BlockException(BlockErrorKind.NotADisk, _device.Disk switch
        {
            DiskMirror => $"{_device.Name} is being copied: wait for that, or cancel it",
            LostDisk => $"{_device.Name} has lost its disk: start the VM again",
            _ => $"{_device.Name} is a disk without files: there is nothing to put another image on",
        });
    }

    private DiskSwitchSide(VirtioBlk device) => (_device, _old, _now) = (device, device.Disk, device.Disk);

    /// <summary>One whose disk is to be let go of, or only flushed when it is a server's.</summary>
    internal static DiskSwitchSide Of(VirtioBlk device) => new(device);

    private IDetachableDisk Files => (IDetachableDisk)_old;

    /// <summary>Begins to make stable what there is, while the guest goes on: there is less to do when it has to wait.</summary>
    internal void FlushAhead() => Post(Threads(), (service, step) => service.Flush(step));

    /// <summary>Waits for that.</summary>
    internal void AwaitFlushed(Deadline deadline) => Await(deadline);

    /// <summary>Holds the queues of all threads that are not held yet.</summary>
    internal void Hold()
    {
        Post(Threads().FindAll(thread => !_held.ContainsKey(thread)), (service, step) => service.Quiesce(step));
        _steps.ForEach(each => _held.Add(each.Thread, each.Step));
    }

    /// <summary>Waits until nothing is in flight and everything is stable.</summary>
    internal void AwaitQuiet(Deadline deadline) => Await(deadline);

    /// <summary>True when all threads are held: one that starts from now on waits.</summary>
    internal bool TryStandStill() => _standsStill = _standsStill || _device.WithThreads(threads =>
    {
        bool all = threads.TrueForAll(_held.ContainsKey);
        if (all)
        {
            _device.Unsettle();
        }

        return all;
    });

    /// <summary>Closes the nodes of the disk.</summary>
    internal void BeginClose() => Post(_held.Keys, (service, step) => service.CloseDisk(step));

    /// <summary>Waits for that: there is nothing in flight, and nothing to flush.</summary>
    internal void EndClose() => Await();

    /// <summary>The old disk ends, and the new one is made of its files.</summary>
    internal void Open()
    {
        BlockGeometry before = _old.Geometry;
        _files = Files.Detach();
        _next = _make!(_files);
        BlockGeometry after = _next.Geometry;
        if (after.CapacityBytes < before.CapacityBytes || after.ReadOnly != before.ReadOnly)
        {
            throw new BlockException(
                BlockErrorKind.BadSize,
                $"{_device.Name}: the new image has {after.CapacityBytes} bytes{(after.ReadOnly ? ", read only" : "")}, "
                    + $"the disk {before.CapacityBytes}");
        }

        _now = _next;
    }

    /// <summary>
    /// The disk ends, and its files may be used by somebody else. The device has them still, and closes them when it ends; nothing is read
    /// or written.
    /// </summary>
    internal void LetGo()
    {
        _files = Files.Detach();
        _now = new LostDisk(_old.Geometry, _files);
        _device.Settle(_now); // one that ends now waits for nobody
        _files.Unlock();
    }

    /// <summary>Ends <see cref="LetGo"/>, and what led there; nothing when it did not come so far.</summary>
    /// <exception cref="BlockException">Somebody else uses a file: everything stays let go.</exception>
    internal void LockAgain() => _files?.LockAgain();

    /// <summary>Makes the nodes of the new disk.</summary>
    internal void MakeNodes()
    {
        Post(_held.Keys, (service, step) => service.MakeNode(step, _now, otherwise: null));
        Await();
    }

    /// <summary>The old disk again, after a failure. Does not fail.</summary>
    /// <returns>Why it is lost; null: it is not.</returns>
    internal string? GoBack()
    {
        string? lost = null;
        BeginClose(); // one that is closed already says so at once
        WaitForSteps();
        try
        {
            _ = _next?.Detach(); // its files are those of the old one, and the caller's
            _now = _files?.Reopen() ?? _old;
        }
#pragma warning disable CA1031 // Whatever it is, the guest gets errors, and the process goes on.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            lost = $"{_device.Name} could not be opened again: {cause.Message}";
        }

        LostDisk otherwise = new(_old.Geometry, (IDisposable?)_files ?? _old);
        _now = lost is null ? _now : otherwise;
        Post(_held.Keys, (service, step) => service.MakeNode(step, _now, otherwise));
        WaitForSteps();
        return lost ?? (_steps.Find(each => each.Step.Problem is not null).Step?.Problem is { } problem
            ? $"{_device.Name} could not be reached again: {problem.Message}" : null);
    }

    /// <summary>The queues go on.</summary>
    internal void GoOn()
    {
        if (_standsStill)
        {
            _device.Settle(_now);
        }

        foreach (BlkThread thread in _held.Keys)
        {
            _ = thread.Post(service => service.EndSwitch());
        }
    }

    private List<BlkThread> Threads() => _device.WithThreads(threads => new List<BlkThread>(threads));

    private void Post(IEnumerable<BlkThread> threads, Action<BlkService, SwitchStep> act)
    {
        _steps = [];
        foreach (BlkThread thread in threads)
        {
            SwitchStep step = new();
            _steps.Add((thread, step));
            _ = thread.Post(service => act(service, step)); // a thread that ends instead is joined
        }
    }

    // Waits for all, however it goes: a step is done, or its thread has ended.
    private void WaitForSteps(Deadline? deadline = null)
    {
        foreach ((BlkThread thread, SwitchStep step) in _steps)
        {
            while (!step.Wait(s_look) && !thread.Join(TimeSpan.Zero))
            {
                if (deadline?.IsOver == true)
                {
                    throw new TimeoutException($"{_device.Name}: requests in flight did not end in time");
                }
            }
        }
    }

    private void Await(Deadline? deadline = null)
    {
        WaitForSteps(deadline);
        foreach ((_, SwitchStep step) in _steps)
        {
            if (step.Problem is not null || step.Status != DiskStatus.Ok)
            {
                throw step.Problem ?? new BlockException(
                    BlockErrorKind.Io,
                    $"{_device.Name}: what was written cannot be made stable: "
                        + (step.Status == DiskStatus.NoSpace ? "the file system is full" : "the host reports an I/O error"))
                { Status = step.Status };
            }
        }
    }
}
