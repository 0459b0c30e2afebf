using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>Copies to and from the disk's array.</summary>
internal sealed class MemoryNode(MemoryDiskBackend disk, IoLoop loop) : InstantNode(disk, loop)
{
    private readonly byte[] _content = disk.Content;

    public override bool WritesZeroesAsData(bool mayUnmap) => true;

    protected override DiskStatus Move(BlockRequest request)
    {
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
