namespace Vmm.Storage.Qcow2;

/// <summary>
/// Incompatible features (qcow2.rst, byte 72 of the header): who does not know one of them cannot use the image.
/// </summary>
[Flags]
public enum Qcow2Incompatible : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>Refcounts may be wrong: the last writer kept them in memory only and did not end.</summary>
    Dirty = 1,

    /// <summary>Damage was seen: the image may be read, and is not written before it was repaired.</summary>
    Corrupt = 2,

    /// <summary>Payload lies in another file.</summary>
    ExternalData = 4,

    /// <summary>The header has a compression type other than zlib.</summary>
    CompressionType = 8,

    /// <summary>L2 entries have 16 bytes and a bitmap of subclusters.</summary>
    ExtendedL2 = 16,
}

/// <summary>Compatible features (byte 80): may be ignored.</summary>
[Flags]
public enum Qcow2Compatible : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The writer may keep refcounts in memory, with <see cref="Qcow2Incompatible.Dirty"/> set meanwhile.</summary>
    LazyRefcounts = 1,
}

/// <summary>Autoclear features (byte 88): who does not know one clears it before the first write.</summary>
[Flags]
public enum Qcow2Autoclear : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The bitmaps of the image say the truth.</summary>
    Bitmaps = 1,

    /// <summary>The external data file can be read as a raw image.</summary>
    RawExternalData = 2,
}

/// <summary>How compressed clusters are compressed (byte 104).</summary>
public enum Qcow2Compression : byte
{
    /// <summary>Raw deflate (RFC 1951).</summary>
    Deflate = 0,

    /// <summary>Zstandard (RFC 8878).</summary>
    Zstd = 1,
}
