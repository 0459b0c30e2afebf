using System.Runtime.InteropServices;

namespace Vmm.Devices.Virtio.Balloon;

/// <summary>Serves the queues of one activation of a balloon, on its queue thread (virtio 1.2 section 5.5.6).</summary>
internal sealed class BalloonQueues : IQueueService
{
    /// <summary>
    /// Frame numbers of one chain that count; Linux sends 256 at once. What is beyond is not looked at, so that no chain keeps the thread
    /// for long.
    /// </summary>
    public const int MaxFramesPerChain = 16384;

    private const int MaxStatisticsBytes = 64 * BalloonStatistics.EntryBytes;

    private readonly VirtioBalloon _device;
    private readonly VirtioActivation _activation;
    private readonly BalloonPages _pages;
    private readonly RingPump?[] _pumps;
    private readonly uint[] _frames = new uint[MaxFramesPerChain];
    private readonly byte[] _statistics = new byte[MaxStatisticsBytes];
    private readonly int _reporting;
    private QueueThread _thread = null!; // Started comes first

    internal BalloonQueues(VirtioBalloon device, VirtioActivation activation, BalloonPages pages)
    {
        _device = device;
        _activation = activation;
        _pages = pages;
        _reporting = ReportingQueue();
        _pumps = new RingPump?[activation.Queues.Count];
        for (int i = 0; i < _pumps.Length; i++)
        {
            _pumps[i] = activation.Queues[i] is null ? null : MakePump(i);
        }
    }

    /// <inheritdoc/>
    public void Started(QueueThread thread)
    {
        _thread = thread;
        foreach (RingPump? pump in _pumps)
        {
            pump?.Wake = thread.Wake;
        }
    }

    /// <inheritdoc/>
    public QueueProgress Serve()
    {
        bool again = false;
        for (int i = 0; i < _pumps.Length && !_thread.Stopping; i++)
        {
            if (_pumps[i] is not { } pump)
            {
                continue;
            }

            if (!pump.Serve())
            {
                return QueueProgress.Broken;
            }

            if (i == VirtioBalloon.StatisticsQueue && _device.TakeQuestion(out ushort head))
            {
                pump.Complete(head, 0); // 5.5.6.4.2: giving the buffer back is the question, its next coming the answer
            }

            again |= pump.PrepareSleep();
        }

        return again ? QueueProgress.Again : QueueProgress.Idle;
    }

    /// <inheritdoc/>
    public void Held()
    {
        foreach (RingPump? pump in _pumps)
        {
            pump?.GiveBack();
        }
    }

    /// <summary>A queue of a feature that was not accepted does not exist (5.5.2): nothing is taken from it.</summary>
    private RingPump? MakePump(int queue)
    {
        const uint Frames = MaxFramesPerChain * sizeof(uint);
        return queue switch
        {
            0 => new RingPump(_activation, queue, new Frameset(this, inflate: true), Frames, 0),
            1 => new RingPump(_activation, queue, new Frameset(this, inflate: false), Frames, 0),
            VirtioBalloon.StatisticsQueue when Accepted(BalloonFeatures.Statistics) =>
                new RingPump(_activation, queue, new Statistics(this), MaxStatisticsBytes, 0),
            _ when queue == _reporting => new RingPump(_activation, queue, new Reporting(this), 0, 0),
            _ => null,
        };
    }

    private bool Accepted(ulong feature) => (_activation.Features & feature) != 0;

    /// <summary>
    /// 5.5.2 numbers the reporting queue 4 always. Drivers (Linux for most of its life) count only the queues they use: without free page
    /// hints it is 3 for them, or 2 without statistics. It is 4 when the driver enabled that one, -1 without the feature.
    /// </summary>
    private int ReportingQueue()
    {
        if (!Accepted(BalloonFeatures.Reporting))
        {
            return -1;
        }

        return _activation.Queues.Count > 4 && _activation.Queues[4] is not null ? 4 : Accepted(BalloonFeatures.Statistics) ? 3 : 2;
    }

    /// <summary>A handler of one of the queues.</summary>
    private abstract class Handler(BalloonQueues queues) : IChainHandler
    {
        public bool WantsChain => !queues._thread.Stopping;

        protected BalloonQueues Queues => queues;

        public abstract ChainResult Handle(RequestChain chain, out uint written);
    }

    /// <summary>Frame numbers to put into the balloon, or to take out.</summary>
    private sealed class Frameset(BalloonQueues queues, bool inflate) : Handler(queues)
    {
        public override ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            int count = chain.Read(0, MemoryMarshal.AsBytes(Queues._frames.AsSpan())) / sizeof(uint);
            if (inflate)
            {
                Queues._pages.Inflate(Queues._frames.AsSpan(0, count));
            }
            else
            {
                Queues._pages.Deflate(Queues._frames.AsSpan(0, count));
            }

            return ChainResult.Done;
        }
    }

    /// <summary>One buffer waits in the device for the next question; a driver that sends a second one breaks the rules.</summary>
    private sealed class Statistics(BalloonQueues queues) : Handler(queues)
    {
        public override ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            int bytes = chain.Read(0, Queues._statistics);
            return Queues._device.TryAnswer(chain.Head, Queues._statistics.AsSpan(0, bytes)) ? ChainResult.Kept : ChainResult.Malformed;
        }
    }

    /// <summary>
    /// 5.5.6.7: every buffer of the chain is a free page range. With a poison value the pages have to keep it (5.5.6.7.2), so they stay.
    /// </summary>
    private sealed class Reporting(BalloonQueues queues) : Handler(queues)
    {
        public override ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            if (Queues.Accepted(BalloonFeatures.PagePoison) && Queues._device.PoisonValue != 0)
            {
                return ChainResult.Done;
            }

            for (ChainWalker walker = chain.Walk(); walker.MoveNext() == ChainStep.Buffer;)
            {
                // A range the device may not write is not one it may discard either.
                if (walker.Current.Writable)
                {
                    Queues._pages.Report(walker.Current.Address, walker.Current.Length);
                }
            }

            return ChainResult.Done;
        }
    }
}
