using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Writes payload into new clusters: first what has to be copied around it is read, then all of it is written at once, then the tables name
/// it. The node's thread.
/// </summary>
internal sealed class AllocationSteps : IDisposable
{
    private const int ZeroBytes = 64 * 1024;

    // Reading so much for nothing costs less than a second request to the file.
    private const int MostReadOver = 16 * 1024;

    private readonly Qcow2Node _node;
    private readonly ImageState _state;
    private readonly Placement? _placement;
    private readonly int _cluster;
    private NativeArray<byte>? _zeros;

    internal AllocationSteps(Qcow2Node node, Qcow2Disk disk)
    {
        _node = node;
        _state = disk.State;
        _placement = disk.Placement;
        _cluster = disk.ClusterBytes;
    }

    /// <summary>Vectors for so many zeros.</summary>
    internal int ZeroVectors(ulong length) => (int)((length + ZeroBytes - 1) / ZeroBytes);

    /// <summary>Sets them; how many there are.</summary>
    internal int FillWithZeros(Span<IoVector> vectors, ulong length)
    {
        _zeros ??= new NativeArray<byte>(ZeroBytes, 4096);
        int count = 0;
        for (; length > 0; count++)
        {
            nuint here = (nuint)Math.Min(length, ZeroBytes);
            vectors[count] = new IoVector(_zeros.AddressOf(0), here);
            length -= here;
        }

        return count;
    }

    /// <summary>Begins an allocation that was planned. What it failed with, when it is over already.</summary>
    internal DiskStatus? Begin(GuestOperation operation, Part part)
    {
        ref WritePlan plan = ref part.Plan;
        ulong position = operation.Position, payload = plan.PayloadEnd - position;
        bool zeros = operation.Kind == BlockKind.WriteZeroes;
        Span<IoVector> vectors = part.Vectors((zeros ? ZeroVectors(payload) : operation.Memory.CountFor(payload)) + 2);
        int head = (int)(position - plan.Start), tail = (int)(plan.Stop - plan.PayloadEnd), count = 0;
        bool atOnce = head > 0 && tail > 0 && payload <= (ulong)Math.Min(MostReadOver, _cluster);
        int tailAt = atOnce ? head + (int)payload : _cluster; // two clusters at most, so that all of it has room
        part.Fill = plan.CopiesHead || plan.CopiesTail ? _node.Parts.TakeFill() : null;
        if (head > 0)
        {
            vectors[count++] = new IoVector(part.Fill!.AddressOf(0), (nuint)head);
        }

        count += zeros ? FillWithZeros(vectors[count..], payload) : operation.Memory.Take(payload, vectors[count..]);
        if (tail > 0)
        {
            vectors[count++] = new IoVector(part.Fill!.AddressOf(tailAt), (nuint)tail);
        }

        operation.Position = plan.PayloadEnd;
        part.Request.Prepare(BlockKind.Write, plan.Host, (uint)(plan.Stop - plan.Start));
        part.Request.SetData(vectors[..count]);
        (part.Fills, part.FillStatus) = (1, DiskStatus.Ok); // this one until all readings were begun
        if (atOnce)
        {
            BeginFill(part, which: 0, plan.Start, 0, (int)(plan.Stop - plan.Start));
            return FillEnded(part, DiskStatus.Ok);
        }

        if (head > 0)
        {
            BeginFill(part, which: 0, plan.Start, 0, head);
        }

        if (tail > 0)
        {
            BeginFill(part, which: 1, plan.PayloadEnd, tailAt, tail);
        }

        return FillEnded(part, DiskStatus.Ok);
    }

    /// <summary>Begins an allocation that only copies, as planned. What it failed with, when it is over already.</summary>
    internal DiskStatus? BeginCopy(GuestOperation operation, Part part)
    {
        ref WritePlan plan = ref part.Plan;
        int length = (int)(plan.Stop - plan.Start);
        Span<IoVector> vectors = part.Vectors(1);
        part.Fill = _node.Parts.TakeFill();
        vectors[0] = new IoVector(part.Fill.AddressOf(0), (nuint)length);
        operation.Position = plan.Stop;
        part.Request.Prepare(BlockKind.Write, plan.Host, (uint)length);
        part.Request.SetData(vectors);
        (part.Fills, part.FillStatus) = (1, DiskStatus.Ok); // this one until the reading was begun
        BeginFill(part, which: 0, plan.Start, 0, length);
        return FillEnded(part, DiskStatus.Ok);
    }

    /// <summary>A reading of an allocation is over. What the allocation failed with, when that was the last one.</summary>
    internal DiskStatus? FillEnded(Part part, DiskStatus status)
    {
        part.FillStatus = part.FillStatus == DiskStatus.Ok ? status : part.FillStatus;
        if (--part.Fills > 0)
        {
            return null;
        }

        if (part.FillStatus != DiskStatus.Ok)
        {
            return part.FillStatus;
        }

        _node.Send(part);
        return null;
    }

    /// <summary>The payload is in the file, or the allocation failed.</summary>
    internal void End(Part part, DiskStatus status)
    {
        lock (_state)
        {
            if (status == DiskStatus.Ok)
            {
                _placement!.Publish(part);
            }
            else
            {
                _placement!.Abandon(part);
            }
        }

        if (part.Fill is { } fill)
        {
            part.Fill = null;
            _node.Advance(_node.Parts.Return(fill));
        }
    }

    public void Dispose() => _zeros?.Dispose();

    // Reads bytes of the disk into the fill buffer, from that place in it on.
    private void BeginFill(Part part, int which, ulong offset, int place, int length) =>
        _node.BeginFill(part, offset, (uint)length, part.Fill!.SetVector(which, place, length));
}
