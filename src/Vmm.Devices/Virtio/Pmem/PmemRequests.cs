using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Pmem;

/// <summary>Serves the request queue of one activation (virtio 1.2 section 5.19.6): flushes, several at a time.</summary>
internal sealed class PmemRequests : IQueueService, IChainHandler
{
    private const uint TypeFlush = 0;
    private const int RequestBytes = 4, AnswerBytes = 4, Failed = -1; // 5.19.6.1

    private readonly FileDescriptorHandle _file;
    private readonly DmaSpace _memory;
    private readonly RingPump _pump;
    private readonly Stack<Flush> _free = new();
    private QueueThread _thread = null!; // Started comes first

    internal PmemRequests(VirtioActivation activation, FileDescriptorHandle file)
    {
        _file = file;
        _memory = activation.Memory.Dma;
        _pump = new RingPump(activation, 0, this, RequestBytes, AnswerBytes);
    }

    public RingOperations Operations => RingOperations.All; // it flushes a file

    public bool WantsChain => !_thread.Stopping;

    public void Started(QueueThread thread)
    {
        _thread = thread;
        _pump.Wake = thread.Wake;
    }

    public QueueProgress Serve() =>
        !_pump.Serve() ? QueueProgress.Broken : _pump.PrepareSleep() ? QueueProgress.Again : QueueProgress.Idle;

    public void Held() => _pump.GiveBack();

    public ChainResult Handle(RequestChain chain, out uint written)
    {
        written = AnswerBytes;
        Span<byte> request = stackalloc byte[RequestBytes];
        if (chain.Read(0, request) < RequestBytes || chain.WritableBytes < AnswerBytes)
        {
            return ChainResult.Malformed;
        }

        if (BinaryPrimitives.ReadUInt32LittleEndian(request) != TypeFlush)
        {
            chain.Write(0, BitConverter.GetBytes(Failed));
            return ChainResult.Done;
        }

        if (!_free.TryPop(out Flush? flush))
        {
            flush = new Flush(this); // as many as the driver has under way at once
            _thread.Loop.Add(flush);
        }

        return flush.Begin(chain) ? ChainResult.Kept : ChainResult.Malformed;
    }

    /// <summary>One flush under way.</summary>
    private sealed class Flush(PmemRequests requests) : IoOperation
    {
        private readonly VirtioBuffer[] _room = new VirtioBuffer[AnswerBytes];
        private int _pieces;
        private ushort _head;

        /// <summary>Begins it; false when there is no room for its answer.</summary>
        internal bool Begin(RequestChain chain)
        {
            _head = chain.Head;
            if (!chain.TryFindRoom(AnswerBytes, _room, out _pieces))
            {
                return false;
            }

            requests._thread.Loop.DataSync(this, requests._file);
            return true;
        }

        /// <inheritdoc/>
        protected override void OnCompleted(int result)
        {
            Span<byte> answer = stackalloc byte[AnswerBytes];
            BinaryPrimitives.WriteInt32LittleEndian(answer, result == 0 ? 0 : Failed);
            requests._pump.Complete(_head, RequestChain.Scatter(requests._memory, answer, _room.AsSpan(0, _pieces)));
            requests._free.Push(this);
        }
    }
}
