using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>Executes a request as it is submitted; it ends by the next poll of the loop, as everywhere.</summary>
internal sealed class MemoryNode(MemoryDiskBackend disk, IoLoop loop) : IBlockNode, IBlockLeaf
{
    private readonly byte[] _content = disk.Content;

    private TaskCompletionSource? _closed;

    public BlockGeometry Geometry => disk.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => true;

    public void Submit(BlockRequest request)
    {
        request.Run(this);
        InFlight++;
        loop.CompleteLater(request, (int)Execute(request));
    }

    public void OnStep(BlockRequest request, int result)
    {
        InFlight--;
        request.Complete((DiskStatus)result);
        if (_closed is { } closed && InFlight == 0)
        {
            closed.TrySetResult();
        }
    }

    /// <summary>Nothing in it is more stable than the process: waits for what is in flight.</summary>
    public ValueTask FlushAndCloseAsync()
    {
        if (InFlight == 0)
        {
            return default;
        }

        _closed ??= new TaskCompletionSource();
        return new ValueTask(_closed.Task);
    }

    public void Dispose() => this.WaitForAll(loop);

    private DiskStatus Execute(BlockRequest request)
    {
        switch (request.Kind)
        {
            case BlockKind.Flush:
                return DiskStatus.Ok;
            case BlockKind.None:
                return DiskStatus.NotSupported;
            default:
                break;
        }

        if (!request.IsInside(Geometry))
        {
            return DiskStatus.IoError;
        }

        Span<byte> range = _content.AsSpan((int)request.Offset, (int)request.Length);
        if (request.Kind is BlockKind.Read or BlockKind.Write)
        {
            return Copy(range, request);
        }

        range.Clear();
        return DiskStatus.Ok;
    }

    private static DiskStatus Copy(Span<byte> range, BlockRequest request)
    {
        foreach (ref readonly IoVector v in request.Vectors)
        {
            Span<byte> memory = HostSpan.Bytes(v.Base, Math.Min((int)v.Length, range.Length));
            if (request.Kind == BlockKind.Read)
            {
                range[..memory.Length].CopyTo(memory);
            }
            else
            {
                memory.CopyTo(range);
            }

            range = range[memory.Length..];
        }

        return range.IsEmpty ? DiskStatus.Ok : DiskStatus.IoError;
    }
}
