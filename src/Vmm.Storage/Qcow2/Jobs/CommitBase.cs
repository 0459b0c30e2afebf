using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// An image of a chain that is in use, opened a second time as a disk of its own that is written. The chain reads it by tables of an
/// earlier time meanwhile: so nothing that becomes free in it is used again before the chain is gone or was opened anew.
/// </summary>
internal sealed class CommitBase
{
    private readonly IReadOnlyList<ImageLayer> _layers; // the image, and those below it
    private readonly Qcow2DiskOptions _options;
    private readonly TableWrites _writes;
    private IDetachableDisk? _disk;

    /// <param name="layers">The image, which nobody writes, and those below it.</param>
    /// <param name="options">How it is opened.</param>
    /// <param name="writes">Hears when its tables are written.</param>
    internal CommitBase(IReadOnlyList<ImageLayer> layers, Qcow2DiskOptions options, TableWrites writes) =>
        (_layers, _options, _writes) = (layers, options, writes);

    /// <summary>The disk; while it is open.</summary>
    internal IDetachableDisk Disk => _disk ?? throw new InvalidOperationException("The base is not open.");

    /// <summary>The image as it is to be used from now on, when that is by other objects than before.</summary>
    internal ImageLayer? Again { get; private set; }

    private IImageFile File => _layers[0].File;

    /// <summary>Opens it, with at least so many bytes.</summary>
    /// <exception cref="BlockException">Somebody else uses it, it is damaged, or cannot become large enough: it is a base as
    /// before.</exception>
    internal void Open(ulong bytes)
    {
        if (File is RawImageFile file && !TryClaim(file))
        {
            throw new BlockException(
                BlockErrorKind.InUse, $"disk {file.Path} is used by another VM or program as well, and would change under it: stop that")
            { Path = file.Path };
        }

        try
        {
            _disk = _layers[0].Format == ImageFormat.Qcow2 ? OpenImage(bytes) : OpenRaw(bytes);
        }
        catch
        {
            (File as RawImageFile)?.BecomeBase();
            throw;
        }
    }

    /// <summary>It ends, and its file is a base again. No node of it is left.</summary>
    internal void End()
    {
        if (_disk is RawFileBackend raw)
        {
            ulong size = raw.Geometry.CapacityBytes;
            RawImageFile again = new(raw.As(new RawFileOptions { IsImage = true, ReadOnly = true }, size));
            again.BecomeBase();
            Again = new ImageLayer(again, ImageFormat.Raw);
        }
        else if (_disk is not null)
        {
            _ = _disk.Detach();
            (File as RawImageFile)?.BecomeBase();
        }

        _disk = null;
    }

    /// <summary>The chain above it is gone: it stays open, as the disk.</summary>
    internal void Stay()
    {
        if (_disk is Qcow2Disk image)
        {
            image.ReleaseFreed();
        }
        else if (File is RawImageFile file)
        {
            _ = file.Release(); // the open file is the disk's
        }
    }

    private Qcow2Disk OpenImage(ulong bytes)
    {
        Qcow2Disk disk = Qcow2Disk.Over(_layers, _options with { KeepsFreed = true, TellsWrites = _writes });
        try
        {
            if (disk.Geometry.CapacityBytes < bytes)
            {
                disk.Enlarge(bytes);
            }

            return disk;
        }
        catch
        {
            _ = disk.Detach();
            throw;
        }
    }

    private IDetachableDisk OpenRaw(ulong bytes)
    {
        RawImageFile file = File as RawImageFile
            ?? throw new InvalidOperationException("A raw base that is no file of the host is not committed to.");
        if (file.Length < bytes)
        {
            if (!file.IsRegularFile)
            {
                throw new BlockException(
                    BlockErrorKind.BadSize, $"disk {file.Path} has {file.Length} bytes and needs {bytes}: a device does not grow from here")
                { Path = file.Path };
            }

            file.Grow(bytes);
        }

        return file.AsDisk(file.Length / 512 * 512);
    }

    private static bool TryClaim(RawImageFile file)
    {
        try
        {
            return file.TryBecomeTop();
        }
        catch (KernelException cause)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {file.Path} cannot be locked: {cause.Message}", cause) { Path = file.Path };
        }
    }
}
