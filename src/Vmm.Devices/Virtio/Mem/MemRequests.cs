using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Mem;

/// <summary>Kinds of requests, virtio 1.2 section 5.15.6.</summary>
internal enum MemRequestKind : ushort
{
    Plug = 0,
    Unplug = 1,
    UnplugAll = 2,
    State = 3,
}

/// <summary>One request: 24 bytes, of which the kind, an address and a number of blocks count.</summary>
internal readonly record struct MemRequest(MemRequestKind Kind, ulong Address, ushort Blocks)
{
    internal const int Bytes = 24;

    internal static MemRequest Parse(ReadOnlySpan<byte> bytes) => new(
        (MemRequestKind)BinaryPrimitives.ReadUInt16LittleEndian(bytes),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]),
        BinaryPrimitives.ReadUInt16LittleEndian(bytes[16..]));
}

/// <summary>Serves the request queue of one activation, on its queue thread.</summary>
internal sealed class MemRequests : OneQueueService
{
    private const int AnswerBytes = 10;

    private readonly VirtioMem _device;
    private readonly DmaSpace _memory;

    // The answer has no lease: a request may unplug the memory that its own answer lies in.
    internal MemRequests(VirtioMem device, VirtioActivation activation)
        : base(activation, MemRequest.Bytes, mostWritable: 0, publishEach: true)
    {
        _device = device;
        _memory = activation.Memory.Dma;
    }

    /// <summary>Malformed: less than 24 bytes to read, or no room for the answer behind them, each in any pieces (2.7.4.1).</summary>
    public override ChainResult Handle(RequestChain chain, out uint written)
    {
        written = 0;
        Span<byte> bytes = stackalloc byte[MemRequest.Bytes];
        Span<VirtioBuffer> room = stackalloc VirtioBuffer[AnswerBytes];
        if (chain.Read(0, bytes) < MemRequest.Bytes || !chain.TryFindRoom(AnswerBytes, room, out int pieces))
        {
            return ChainResult.Malformed;
        }

        MemAnswer result = _device.Do(MemRequest.Parse(bytes), out MemRangeState state);
        Span<byte> reply = stackalloc byte[AnswerBytes];
        reply.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(reply, (ushort)result);
        BinaryPrimitives.WriteUInt16LittleEndian(reply[8..], (ushort)state);
        written = RequestChain.Scatter(_memory, reply, room[..pieces]);
        return ChainResult.Done;
    }
}
