using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>Reads zeros, and forgets what is written.</summary>
internal sealed class NullNode(NullDiskBackend disk, IoLoop loop) : InstantNode(disk, loop)
{
    public override bool WritesZeroesAsData(bool mayUnmap) => false;

    protected override DiskStatus Move(BlockRequest request)
    {
        if (request.Kind != BlockKind.Read)
        {
            return DiskStatus.Ok;
        }

        ulong left = request.Length;
        foreach (ref readonly IoVector v in request.Vectors)
        {
            Span<byte> memory = HostSpan.Bytes(v.Base, (int)Math.Min(v.Length, left));
            memory.Clear();
            left -= (uint)memory.Length;
        }

        return left == 0 ? DiskStatus.Ok : DiskStatus.IoError;
    }
}
