using Vmm.Io;

namespace Vmm.Storage;

/// <summary>A disk that is somebody else's: whoever has this one uses it, and does not close it.</summary>
/// <param name="disk">The disk.</param>
/// <param name="over">Called in place of closing it; null: nothing is done then.</param>
internal sealed class BorrowedDisk(IDiskBackend disk, Action? over = null) : IDiskBackend
{
    /// <inheritdoc/>
    public BlockGeometry Geometry => disk.Geometry;

    /// <inheritdoc/>
    public bool HasSpace => disk.HasSpace;

    /// <inheritdoc/>
    public void Refresh() => disk.Refresh();

    /// <inheritdoc/>
    public bool CanGoOn(DiskStatus fault) => disk.CanGoOn(fault);

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth) => disk.CreateNode(loop, depth);

    /// <inheritdoc/>
    public ulong DataFrom(ulong offset) => disk.DataFrom(offset);

    /// <inheritdoc/>
    public void Dispose() => over?.Invoke();
}
