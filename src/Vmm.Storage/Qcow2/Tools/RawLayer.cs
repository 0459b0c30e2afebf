using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>A raw image in a chain. Holes of the file are zeros.</summary>
internal sealed class RawLayer : IDiskLayer
{
    private readonly RawFileBackend _backend;
    private readonly RawImageFile _file;
    private (ulong Start, ulong End) _data; // the last range with data that was found
    private bool _canSeek = true;

    internal RawLayer(string path, FileDescriptorHandle found)
    {
        _backend = RawFileBackend.Open(path, ImageFiles.ToRead, found);
        _file = new RawImageFile(_backend);
    }

    /// <inheritdoc/>
    public string Path => _file.Path;

    /// <inheritdoc/>
    public string Format => "raw";

    /// <inheritdoc/>
    public ulong Size => _file.Length;

    /// <inheritdoc/>
    public ulong FileBytes => _file.Length;

    /// <inheritdoc/>
    public Qcow2Header? Header => null;

    internal FileDescriptorHandle Descriptor => _backend.Buffered;

    /// <inheritdoc/>
    public DiskExtent Map(ulong offset, ulong most)
    {
        ulong end = offset + Math.Min(most, Size - offset);
        if (_canSeek && (offset < _data.Start || offset >= _data.End))
        {
            FindData(offset);
        }

        return !_canSeek ? new DiskExtent(offset, end - offset, DiskExtentKind.Data, 0, offset)
            : offset < _data.Start ? new DiskExtent(offset, Math.Min(end, _data.Start) - offset, DiskExtentKind.Zero, 0, 0)
            : new DiskExtent(offset, Math.Min(end, _data.End) - offset, DiskExtentKind.Data, 0, offset);
    }

    /// <inheritdoc/>
    public void Read(DiskExtent extent, Span<byte> destination) => _file.Read(destination, extent.HostOffset);

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private void FindData(ulong offset)
    {
        try
        {
            _data = DataExtents.TryFindNext(_backend.Buffered, offset, out ulong start, out ulong end)
                ? (start, end) : (ulong.MaxValue, ulong.MaxValue);
        }
        catch (KernelException)
        {
            _canSeek = false; // a block device: all of it is data
        }
    }
}
