using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>What a handler did with a chain.</summary>
internal enum ChainResult
{
    /// <summary>It is done: back to the driver with the bytes written.</summary>
    Done,

    /// <summary>The device keeps it and gives it back by <see cref="RingPump.Complete"/> later.</summary>
    Kept,

    /// <summary>There is nothing to put into it yet: it counts as not taken, and serving ends.</summary>
    PutBack,

    /// <summary>It breaks the rules of the device: NEEDS_RESET.</summary>
    Malformed,
}

/// <summary>What a device does with the chains of one queue, on the thread of its loop.</summary>
internal interface IChainHandler
{
    /// <summary>False: take no chain now (the device is stopping, has nothing to give, or no room).</summary>
    bool WantsChain { get; }

    /// <summary>Carries out one chain, whose pages are there until it returns.</summary>
    /// <param name="chain">The chain.</param>
    /// <param name="written">Bytes written to it, for <see cref="ChainResult.Done"/>.</param>
    ChainResult Handle(RequestChain chain, out uint written);
}

/// <summary>
/// Serves one virtqueue: takes chains, acquires their pages, lets the handler carry them out, gives them back and tells the driver. A chain
/// whose pages are on their way in stalls its queue and no other: it is acquired again when they came. One thread; nothing is allocated for
/// a chain.
/// </summary>
internal sealed class RingPump : IPageWaiter
{
    private readonly VirtioActivation _activation;
    private readonly int _index;
    private readonly Virtqueue _queue;
    private readonly IChainHandler _handler;
    private readonly RequestChain _chain;
    private readonly bool _publishEach;
    private bool _givenBack; // the chain that waited counts as not taken
    private volatile Stage _stage; // Waiting becomes Retry on a thread of the pager, everything else on the loop's

    /// <summary>Makes the pump of an enabled queue.</summary>
    /// <param name="activation">Where the queue is of.</param>
    /// <param name="index">Its number.</param>
    /// <param name="handler">What is done.</param>
    /// <param name="mostReadable">Readable bytes of a chain that are looked at.</param>
    /// <param name="mostWritable">Writable bytes of a chain that are filled at most.</param>
    /// <param name="publishEach">Each chain is shown to the driver at once, not all of a round together: a driver that waits for each
    /// answer.</param>
    internal RingPump(
        VirtioActivation activation, int index, IChainHandler handler, uint mostReadable, uint mostWritable, bool publishEach = false)
    {
        _activation = activation;
        _index = index;
        _queue = activation.Queues[index]!.Queue;
        _handler = handler;
        _publishEach = publishEach;
        _chain = new RequestChain(_queue, activation.Memory.Dma, mostReadable, mostWritable);
    }

    /// <summary>Makes the loop serve once more; set before the first <see cref="Serve"/>.</summary>
    public Action? Wake { get; set; }

    private enum Stage
    {
        /// <summary>No chain is at hand.</summary>
        Free,

        /// <summary>The chain at hand waits for its pages.</summary>
        Waiting,

        /// <summary>Its pages came: it is to be acquired again.</summary>
        Retry,
    }

    /// <summary>
    /// Serves what is in the ring, at most a ring's worth, so that other queues have their turn. False when the driver broke the ring or a
    /// chain.
    /// </summary>
    public bool Serve()
    {
        bool sound = true;
        for (int budget = _queue.Size; budget > 0 && sound && _stage != Stage.Waiting && _handler.WantsChain; budget--)
        {
            if (_stage == Stage.Free || _givenBack)
            {
                _stage = Stage.Free;
                _givenBack = false;
                TakeResult taken = _queue.TryTake(out ushort head);
                if (taken == TakeResult.Empty)
                {
                    break;
                }

                if (taken == TakeResult.Malformed || !_chain.TryParse(head))
                {
                    sound = false;
                    break;
                }
            }

            if (!ServeChain(out sound))
            {
                break;
            }
        }

        _activation.Publish(_index);
        return sound;
    }

    /// <summary>Gives back a chain that the handler kept, and tells the driver.</summary>
    public void Complete(ushort head, uint written)
    {
        _queue.Complete(head, written);
        _activation.Publish(_index);
    }

    /// <summary>Before sleeping: asks for the doorbell while chains are wanted. True when some arrived meanwhile: serve again.</summary>
    public bool PrepareSleep()
    {
        if (_stage != Stage.Free || !_handler.WantsChain)
        {
            // The driver's buffers wait in the ring, and nobody needs to be told of more.
            _queue.DisableNotifications();
            return _stage == Stage.Retry;
        }

        return _queue.EnableNotifications();
    }

    /// <summary>
    /// A chain that waits for its pages counts as not taken; it is acquired again, where it was, when the queue goes on. No pages of this
    /// queue are used meanwhile.
    /// </summary>
    public void GiveBack()
    {
        if (_stage != Stage.Free)
        {
            _queue.Untake(1);
            _givenBack = true;
        }
    }

    /// <inheritdoc/>
    public void PagesReady(PageLease lease)
    {
        _stage = Stage.Retry;
        Wake?.Invoke();
    }

    // False: the round is over.
    private bool ServeChain(out bool sound)
    {
        sound = true;
        switch (_chain.Acquire(this))
        {
            case Acquired.Pending:
                _stage = Stage.Waiting;
                return false;
            case Acquired.Outside:
                sound = false; // it was RAM when it was parsed: its memory was unplugged since
                return false;
            default:
                break;
        }

        _stage = Stage.Free;
        ChainResult result;
        uint written;
        try
        {
            result = _handler.Handle(_chain, out written);
        }
        finally
        {
            _chain.Release();
        }

        switch (result)
        {
            case ChainResult.Done:
                _queue.Complete(_chain.Head, written);
                if (_publishEach)
                {
                    _activation.Publish(_index);
                }

                return true;
            case ChainResult.PutBack:
                _queue.Untake(1);
                return false;
            case ChainResult.Malformed:
                sound = false;
                return false;
            default:
                return true;
        }
    }
}
