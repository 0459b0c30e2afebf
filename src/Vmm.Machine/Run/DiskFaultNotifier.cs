using Vmm.Devices.Virtio;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>
/// Tells of disks that fail, on a thread for each: an I/O thread may be confined and must not wait for who listens. Disks tell once per
/// episode (<see cref="Vmm.Devices.Virtio.Blk.VirtioBlk"/>), so there are few.
/// </summary>
internal sealed class DiskFaultNotifier(IIoThreads? starter, Action<string, string, DiskStatus> tell)
{
    private readonly Lock _gate = new();
    private readonly List<Thread> _threads = [];
    private bool _over;

    /// <summary>An episode began. I/O thread of the disk.</summary>
    internal void Report(string disk, string path, DiskStatus status)
    {
        lock (_gate)
        {
            if (_over)
            {
                return;
            }

            _threads.RemoveAll(thread => !thread.IsAlive);
            Thread thread = new(() => tell(disk, path, status), maxStackSize: 256 * 1024) { Name = disk + "-fault", IsBackground = true };
            try
            {
                (starter ?? PlainIoThreads.Instance).Start(thread);
                _threads.Add(thread); // once it runs: what is in the list is joined
            }
#pragma warning disable CA1031 // No thread can be had: this episode is not told of, but the disk goes on.
            catch (Exception)
#pragma warning restore CA1031
            {
                return;
            }
        }
    }

    /// <summary>The guest is over: nothing is told any more when this returns.</summary>
    internal void End()
    {
        Thread[] threads;
        lock (_gate)
        {
            _over = true;
            threads = [.. _threads];
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }
    }
}
