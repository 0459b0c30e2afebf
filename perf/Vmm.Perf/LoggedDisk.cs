using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Perf;

/// <summary>A disk with a change log before it, in a file that is there as long as the disk is.</summary>
internal sealed class LoggedDisk : IDiskBackend
{
    private readonly IDiskBackend _disk;
    private readonly string _path;
    private readonly ChangeLog _log;

    /// <param name="disk">Taken over.</param>
    /// <param name="path">Where the log is to be.</param>
    internal LoggedDisk(IDiskBackend disk, string path)
    {
        (_disk, _path) = (disk, path);
        ulong bytes = disk.Geometry.CapacityBytes;
        ChangeLogFile.Create(path, bytes, generation: 1).Dispose();
        _log = ChangeLog.Open(BlockFile.Open(path, writable: true, direct: false), bytes);
    }

    public BlockGeometry Geometry => _disk.Geometry;

    public IBlockNode CreateNode(IoLoop loop, int depth) => _log.CreateNode(_disk, loop, depth);

    public void Dispose()
    {
        _disk.Dispose();
        _log.Dispose();
        File.Delete(_path);
    }
}
