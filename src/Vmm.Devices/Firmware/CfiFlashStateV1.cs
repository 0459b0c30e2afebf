namespace Vmm.Devices.Firmware;

/// <summary>Saved state of <see cref="CfiFlash"/>, version 1; its shape never changes.</summary>
public sealed record CfiFlashStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "cfi-flash";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>What a read gives and a write means: 0 array, 1 status, 2 identifier, 3 the byte to program, 4 the confirmation of an
    /// erasure.</summary>
    public required byte Mode { get; init; }

    /// <summary>The status register.</summary>
    public required byte Status { get; init; }

    /// <summary>The blocks of 4 KiB that are not erased, by their number. Without the others a flash of variables is small.</summary>
    public required FlashBlockV1[] Blocks { get; init; }
}

/// <summary>A block of a flash.</summary>
public sealed record FlashBlockV1
{
    /// <summary>Its number.</summary>
    public required int Number { get; init; }

    /// <summary>Its 4096 bytes.</summary>
    public required byte[] Bytes { get; init; }
}
