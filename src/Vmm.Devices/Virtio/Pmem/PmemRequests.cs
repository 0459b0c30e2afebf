using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Pmem;

/// <summary>Serves the request queue of one activation (virtio 1.2 section 5.19.6): flushes, several at a time.</summary>
internal sealed class PmemRequests : OneQueueService
{
    private const uint TypeFlush = 0;
    private const int RequestBytes = 4, AnswerBytes = 4, Failed = -1; // 5.19.6.1

    private readonly FileDescriptorHandle _file;
    private readonly DmaSpace _memory;
    private readonly Stack<Flush> _free = new();

    internal PmemRequests(VirtioActivation activation, FileDescriptorHandle file)
        : base(activation, RequestBytes, AnswerBytes)
    {
        _file = file;
        _memory = activation.Memory.Dma;
    }

    public override RingOperations Operations => RingOperations.All; // it flushes a file

    public override ChainResult Handle(RequestChain chain, out uint written)
    {
        written = AnswerBytes;
        Span<byte> request = stackalloc byte[RequestBytes];
        if (chain.Read(0, request) < RequestBytes || chain.WritableBytes < AnswerBytes)
        {
            return ChainResult.Malformed;
        }

        if (BinaryPrimitives.ReadUInt32LittleEndian(request) != TypeFlush)
        {
            Span<byte> refused = stackalloc byte[AnswerBytes];
            BinaryPrimitives.WriteInt32LittleEndian(refused, Failed);
            chain.Write(0, refused);
            return ChainResult.Done;
        }

        if (!_free.TryPop(out Flush? flush))
        {
            flush = new Flush(this); // as many as the driver has under way at once
            Thread.Loop.Add(flush);
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

            requests.Thread.Loop.DataSync(this, requests._file);
            return true;
        }

        /// <inheritdoc/>
        protected override void OnCompleted(int result)
        {
            Span<byte> answer = stackalloc byte[AnswerBytes];
            BinaryPrimitives.WriteInt32LittleEndian(answer, result == 0 ? 0 : Failed);
            requests.Pump.Complete(_head, RequestChain.Scatter(requests._memory, answer, _room.AsSpan(0, _pieces)));
            requests._free.Push(this);
        }
    }
}
