namespace Vmm.Storage;

/// <summary>
/// A disk in files that can end without closing them, so that another disk is made of them at once: with one image more, or fewer. Two
/// disks cannot use one file at a time, since an image has one owner.
/// </summary>
public interface IDetachableDisk : IDiskBackend
{
    /// <summary>
    /// Ends the disk: what is left of its metadata is written, and reserved clusters are given back. It has no nodes any more, and what was
    /// written through them is flushed. This object is over.
    /// </summary>
    DetachedDisk Detach();
}

/// <summary>The files of a disk that ended, open and locked as before. They belong to whoever makes the next disk of them.</summary>
public sealed class DetachedDisk : IDisposable
{
    private readonly IReadOnlyList<ImageLayer> _layers;
    private readonly Func<IDetachableDisk> _reopen;
    private readonly string? _problem;
    private readonly IDisposable? _rest;

    /// <param name="layers">The images, the top first.</param>
    /// <param name="reopen">Makes the disk of them again that they were.</param>
    /// <param name="problem">Why there are no images, but for the way back; null when there are.</param>
    /// <param name="rest">What else is open then.</param>
    public DetachedDisk(
        IReadOnlyList<ImageLayer> layers, Func<IDetachableDisk> reopen, string? problem = null, IDisposable? rest = null)
    {
        _layers = layers;
        _reopen = reopen;
        _problem = problem;
        _rest = rest;
    }

    /// <summary>The images, the top first. A raw disk is one raw image.</summary>
    /// <exception cref="BlockException">The host has no resources for that.</exception>
    public IReadOnlyList<ImageLayer> Layers =>
        _problem is null ? _layers : throw new BlockException(BlockErrorKind.Io, _problem);

    /// <summary>
    /// Somebody else may use the files from now on, as they are on the disk; they stay open here, and are neither read nor written until
    /// <see cref="LockAgain"/>.
    /// </summary>
    /// <exception cref="BlockException">The host failed: some are locked still.</exception>
    public void Unlock()
    {
        try
        {
            foreach (ImageLayer layer in Layers)
            {
                if (layer.File.IsWritable)
                {
                    layer.File.Flush(); // the image was ended after its last flush
                }

                (layer.File as RawImageFile)?.Unlock();
            }
        }
        catch (Interop.KernelException cause)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {Layers[0].File.Path} cannot be let go of: {cause.Message}", cause);
        }
    }

    /// <summary>The files are this process's again, as they were before <see cref="Unlock"/>; also when that failed.</summary>
    /// <exception cref="BlockException">Somebody else uses one; which ones are locked then is not said.</exception>
    public void LockAgain()
    {
        foreach (ImageLayer layer in Layers)
        {
            (layer.File as RawImageFile)?.LockAgain();
        }
    }

    /// <summary>The disk that it was, in the same files.</summary>
    /// <exception cref="BlockException">The host failed, or the files were changed; they stay open.</exception>
    public IDetachableDisk Reopen() => _reopen();

    /// <summary>Closes the files, when no disk was made of them.</summary>
    public void Dispose()
    {
        foreach (ImageLayer layer in _layers)
        {
            layer.File.Dispose();
        }

        _rest?.Dispose();
    }
}
