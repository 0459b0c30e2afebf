using Vmm.Io;
using Vmm.Storage.Changes;

namespace Vmm.Storage.Tests;

/// <summary>A disk with a change log before it, whose file is deleted afterwards.</summary>
internal sealed class LoggedDisk : IDiskBackend
{
    private readonly IDiskBackend _disk;
    private readonly LogFile _file;
    private readonly ChangeLog _log;

    public LoggedDisk(IDiskBackend disk)
    {
        _disk = disk;
        _file = new LogFile(disk.Geometry.CapacityBytes);
        _log = _file.OpenLog();
    }

    /// <summary>vmmd's side of the log.</summary>
    public ChangeLogFile File => _file.File;

    /// <summary>The log.</summary>
    public ChangeLog Log => _log;

    public BlockGeometry Geometry => _disk.Geometry;

    public bool HasSpace => _disk.HasSpace;

    public void OnGeometryChanged(Action changed) => _disk.OnGeometryChanged(() =>
    {
        _log.Grow(_disk.Geometry.CapacityBytes);
        changed();
    });

    public void Refresh() => _disk.Refresh();

    public void Enlarge(ulong bytes) => _disk.Enlarge(bytes);

    public bool CanGoOn(DiskStatus fault) => _disk.CanGoOn(fault);

    public ulong DataFrom(ulong offset) => _disk.DataFrom(offset);

    public IBlockNode CreateNode(IoLoop loop, int depth) => _log.CreateNode(_disk, loop, depth);

    public void Dispose()
    {
        _disk.Dispose();
        _log.Dispose();
        _file.Dispose();
    }
}
