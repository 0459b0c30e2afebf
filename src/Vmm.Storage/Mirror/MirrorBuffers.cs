using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// Memory for the pieces of a node's mirrored writes: a copy that the guest cannot change. A fixed number; who finds none waits.
/// </summary>
/// <param name="slots">Most that can wait.</param>
internal sealed class MirrorBuffers(int slots) : IDisposable
{
    private readonly BounceBuffers _buffers = new(4096);
    private readonly Queue<MirrorSlot> _waiting = new(slots);

    /// <summary>Gives a slot a buffer, unless it has one. False: it waits for <see cref="Return"/> of another.</summary>
    internal bool TryTake(MirrorSlot slot)
    {
        if (slot.Buffer < 0 && (slot.Buffer = _buffers.Take()) < 0)
        {
            slot.Step = MirrorStep.WaitsForBuffer;
            _waiting.Enqueue(slot);
            return false;
        }

        return true;
    }

    /// <summary>Takes a slot's buffer back, if it has one.</summary>
    /// <returns>The slot that has waited longest, which goes on; null when there is none.</returns>
    internal MirrorSlot? Return(MirrorSlot slot)
    {
        if (slot.Buffer < 0)
        {
            return null;
        }

        _buffers.Return(slot.Buffer);
        slot.Buffer = -1;
        return _waiting.TryDequeue(out MirrorSlot? next) ? next : null;
    }

    /// <summary>The bytes of a slot's piece.</summary>
    internal Span<byte> Bytes(MirrorSlot slot) => _buffers.Bytes(slot.Buffer)[..(int)slot.Piece];

    /// <summary>The same as one vector, until it is asked for the next piece.</summary>
    internal ReadOnlySpan<IoVector> Vectors(MirrorSlot slot) =>
        HostSpan.Vectors(_buffers.Vector(slot.Buffer, 0, slot.Piece), 1);

    public void Dispose() => _buffers.Dispose();
}
