namespace Vmm.Machine.Saved;

/// <summary>The memory files of a saved VM, version 1; its shape never changes.</summary>
public sealed record SavedMemoryV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "memory";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Bytes of a chunk, each with a checksum of its own.</summary>
    public required uint ChunkBytes { get; init; }

    /// <summary>The files, one a vnode that has memory.</summary>
    public required IReadOnlyList<SavedVnodeV1> Vnodes { get; init; }
}

/// <summary>
/// The files of memory that comes and goes, version 1; its shape never changes. Blocks that were not plugged are holes.
/// </summary>
public sealed record SavedHotMemoryV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "hot-memory";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The files, one a vnode that has such memory, in chunks as those of <see cref="SavedMemoryV1"/>.</summary>
    public required IReadOnlyList<SavedVnodeV1> Vnodes { get; init; }
}

/// <summary>A memory file in a <see cref="SavedMemoryV1"/> or <see cref="SavedHotMemoryV1"/>.</summary>
public sealed record SavedVnodeV1
{
    /// <summary>The vnode.</summary>
    public required int Vnode { get; init; }

    /// <summary>Its size, and that of the file.</summary>
    public required ulong Bytes { get; init; }

    /// <summary>CRC-32C of each chunk, four bytes each, little-endian; of its zeros for one that is a hole.</summary>
    public required byte[] Checksums { get; init; }
}

/// <summary>The guest's time, version 1; its shape never changes.</summary>
public sealed record GuestTimeStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "guest-time";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Nanoseconds that passed for devices that count time, from where they like.</summary>
    public required ulong Nanoseconds { get; init; }
}
