namespace Vmm.Devices.Virtio.Mem;

/// <summary>
/// Saved state of <see cref="VirtioMem"/>, version 1; its shape never changes. The content of plugged blocks is saved with the machine's
/// memory.
/// </summary>
public sealed record MemStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-mem";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Bytes of a block.</summary>
    public required ulong BlockBytes { get; init; }

    /// <summary>Blocks of the region.</summary>
    public required uint Blocks { get; init; }

    /// <summary>What the guest is asked to have plugged.</summary>
    public required ulong RequestedBytes { get; init; }

    /// <summary>One bit a block, from the lowest bit of the first byte: it is plugged.</summary>
    public required byte[] Plugged { get; init; }
}
