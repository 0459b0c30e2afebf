using System.Runtime.InteropServices;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Balloon;

/// <summary>Serves the queues of one activation of a balloon, on its queue thread (virtio 1.2 section 5.5.6).</summary>
internal sealed class BalloonQueues : IQueueService
{
    /// <summary>Frame numbers of one chain that count; Linux sends 256 at once. What is beyond is not looked at, so that no chain keeps the thread for long.</summary>
    public const int MaxFramesPerChain = 16384;

    private const int MaxStatisticsBytes = 64 * BalloonStatistics.EntryBytes;

    private readonly VirtioBalloon _device;
    private readonly VirtioActivation _activation;
    private readonly BalloonPages _pages;
    private readonly uint[] _frames = new uint[MaxFramesPerChain];
    private readonly byte[] _statistics = new byte[MaxStatisticsBytes];
    private readonly int _reporting;
    private int _statisticsHead = -1;

    public BalloonQueues(VirtioBalloon device, VirtioActivation activation, BalloonPages pages)
    {
        _device = device;
        _activation = activation;
        _pages = pages;
        _reporting = ReportingQueue();
    }

    private enum Role
    {
        Inflate,
        Deflate,
        Statistics,
        Report,
        Absent,
    }

    public QueueProgress Serve(QueueThread thread)
    {
        QueueProgress progress = QueueProgress.Idle;
        for (int i = 0; i < _activation.Queues.Count && !thread.Stopping; i++)
        {
            if (_activation.Queues[i] is not { } active || RoleOf(i) == Role.Absent)
            {
                continue;
            }

            if (!ServeQueue(thread, i, active.Queue))
            {
                return QueueProgress.Broken;
            }

            if (RoleOf(i) == Role.Statistics && _statisticsHead >= 0 && _device.TakeStatisticsWish())
            {
                // 5.5.6.4.2: giving the buffer back is the question, its next coming the answer.
                active.Queue.Complete((ushort)_statisticsHead, 0);
                _statisticsHead = -1;
                _activation.Publish(i);
            }

            if (active.Queue.EnableNotifications())
            {
                progress = QueueProgress.Again;
            }
        }

        return progress;
    }

    /// <summary>A queue of a feature that was not accepted does not exist (5.5.2): nothing is taken from it.</summary>
    private Role RoleOf(int queue) => queue switch
    {
        0 => Role.Inflate,
        1 => Role.Deflate,
        2 when Accepted(BalloonFeatures.Statistics) => Role.Statistics,
        _ when queue == _reporting => Role.Report,
        _ => Role.Absent,
    };

    private bool Accepted(ulong feature) => (_activation.Features & feature) != 0;

    /// <summary>
    /// 5.5.2 numbers the reporting queue 4 always. Drivers (Linux for most of its life) count only the queues they use: without free page hints it is 3 for
    /// them, or 2 without statistics. It is 4 when the driver enabled that one, -1 without the feature.
    /// </summary>
    private int ReportingQueue()
    {
        if (!Accepted(BalloonFeatures.Reporting))
        {
            return -1;
        }

        return _activation.Queues.Count > 4 && _activation.Queues[4] is not null ? 4 : Accepted(BalloonFeatures.Statistics) ? 3 : 2;
    }

    private bool ServeQueue(QueueThread thread, int index, Virtqueue queue)
    {
        Role role = RoleOf(index);
        bool sound = true;
        for (int budget = queue.Size; budget > 0 && sound && !thread.Stopping; budget--)
        {
            TakeResult taken = queue.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                break;
            }

            sound = taken == TakeResult.Taken && ServeChain(role, queue.Walk(head), head);
            if (sound && role != Role.Statistics)
            {
                queue.Complete(head, 0);
            }
        }

        _activation.Publish(index);
        return sound;
    }

    private bool ServeChain(Role role, ChainWalker chain, ushort head)
    {
        switch (role)
        {
            case Role.Report:
                return Report(chain);
            case Role.Statistics:
                return TakeStatistics(chain, head);
            default:
                if (!chain.Gather(MemoryMarshal.AsBytes(_frames.AsSpan()), out int bytes))
                {
                    return false;
                }

                if (role == Role.Inflate)
                {
                    _pages.Inflate(_frames.AsSpan(0, bytes / 4));
                }
                else
                {
                    _pages.Deflate(_frames.AsSpan(0, bytes / 4));
                }

                return true;
        }
    }

    /// <summary>One buffer waits in the device for the next question; a driver that sends a second one breaks the rules.</summary>
    private bool TakeStatistics(ChainWalker chain, ushort head)
    {
        if (_statisticsHead >= 0 || !chain.Gather(_statistics, out int bytes))
        {
            return false;
        }

        _statisticsHead = head;
        if (bytes >= BalloonStatistics.EntryBytes)
        {
            _device.SetStatistics(_statistics.AsSpan(0, bytes));
        }

        return true;
    }

    /// <summary>
    /// 5.5.6.7: every buffer of the chain is a free page range. With a poison value the pages have to keep it (5.5.6.7.2), so they stay.
    /// </summary>
    private bool Report(ChainWalker chain)
    {
        bool keep = (_activation.Features & BalloonFeatures.PagePoison) != 0 && _device.PoisonValue != 0;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            // A range the device may not write is not one it may discard either.
            if (!keep && chain.Current.Writable)
            {
                _pages.Report(chain.Current.Address, chain.Current.Length);
            }
        }

        return step == ChainStep.End;
    }
}
