namespace Vmm.Storage;

/// <summary>The format of a file that holds a disk. It is always told, never guessed from the content.</summary>
public enum ImageFormat
{
    /// <summary>The disk's bytes, as they are.</summary>
    Raw,

    /// <summary>qcow2, version 2 or 3.</summary>
    Qcow2,
}

/// <summary>One image of a chain.</summary>
/// <param name="File">Its file.</param>
/// <param name="Format">What is in it.</param>
public sealed record ImageLayer(IImageFile File, ImageFormat Format);
