namespace Vmm.Devices.Firmware;

/// <summary>Saved state of <see cref="FwCfg"/>, version 1; its shape never changes. Its items follow from the machine.</summary>
public sealed record FwCfgStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "fw-cfg";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Number of the item that is read.</summary>
    public required ushort Key { get; init; }

    /// <summary>Bytes of it that were read.</summary>
    public required uint Offset { get; init; }

    /// <summary>Upper half of the address of the next transfer.</summary>
    public required uint AddressHigh { get; init; }
}
