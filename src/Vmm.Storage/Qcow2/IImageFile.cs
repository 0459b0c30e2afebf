namespace Vmm.Storage;

/// <summary>
/// A file that holds an image with a format of its own. Payload goes through nodes; the metadata of the image through the blocking calls
/// here, which one thread makes. Nodes of an image file have no end: the file grows by writing, and reads as zeros behind its end.
/// Both ways see each other's writes, as long as no two of them touch one block at one time.
/// </summary>
public interface IImageFile : IDiskBackend
{
    /// <summary>The file, for errors.</summary>
    string Path { get; }

    /// <summary>Bytes of the file now.</summary>
    ulong Length { get; }

    /// <summary>Bytes that are written at once at least: a write of less reads what is beside it, and writes that back.</summary>
    uint BlockBytes => 1;

    /// <summary>True when it may be written.</summary>
    bool IsWritable { get; }

    /// <summary>Fills <paramref name="destination"/>; zeros behind the end.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    void Read(Span<byte> destination, ulong offset);

    /// <summary>Writes all of it, or fails.</summary>
    /// <exception cref="BlockException">The host failed, or has no space (<see cref="BlockException.Status"/>).</exception>
    void Write(ReadOnlySpan<byte> bytes, ulong offset);

    /// <summary>What was written before, here or through a node, is on stable storage.</summary>
    /// <exception cref="BlockException">It is not, and may be lost.</exception>
    void Flush();

    /// <summary>Gives the range back; it reads as zeros then. False when this file cannot.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    bool TryPunch(ulong offset, ulong length);

    /// <summary>Makes the file at least that long; what is new reads as zeros.</summary>
    /// <exception cref="BlockException">The host failed, or has no space.</exception>
    void Grow(ulong length);
}
