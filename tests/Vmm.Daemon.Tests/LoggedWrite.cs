using Vmm.Io;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Daemon.Tests;

/// <summary>A guest's write through the change log of a worker.</summary>
internal sealed class LoggedWrite : IBlockOwner
{
    private DiskStatus? _status;

    /// <summary>Writes 512 bytes there, as far as the log sees.</summary>
    internal static void Do(ChangeLog log, ulong offset)
    {
        using MemoryDiskBackend disk = new(4 << 20);
        using IoLoop loop = new();
        using IBlockNode node = log.CreateNode(disk, loop, 1);
        LoggedWrite end = new();
        BlockRequest request = new(end);
        loop.Add(request);
        request.Prepare(BlockKind.WriteZeroes, offset, 512);
        node.Submit(request);
        loop.DeliverUntil(() => end._status is not null);
        loop.Remove(request);
        Assert.Equal(DiskStatus.Ok, end._status);
    }

    public void Completed(BlockRequest request, DiskStatus status) => _status = status;
}
