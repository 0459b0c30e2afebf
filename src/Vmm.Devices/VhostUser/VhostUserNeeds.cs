namespace Vmm.Devices.VhostUser;

/// <summary>What a device asks of the back end behind it.</summary>
public sealed record VhostUserNeeds
{
    /// <summary>Feature bits that it must know.</summary>
    public required ulong Features { get; init; }

    /// <summary>Rings that it must serve.</summary>
    public required int Rings { get; init; }

    /// <summary>Rings that every back end of this kind serves, also one without VHOST_USER_PROTOCOL_F_MQ.</summary>
    public required int UsualRings { get; init; }

    /// <summary>It says how many rings it serves; false: pairs of them (network devices).</summary>
    public bool CountsRings { get; init; } = true;

    /// <summary>Bytes of the configuration space that it must have (VHOST_USER_PROTOCOL_F_CONFIG); 0: the device has it itself.</summary>
    public int ConfigLength { get; init; }

    /// <summary>
    /// Descriptors of a ring of which a record is kept while they are in flight, where the back end can
    /// (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD); 0: no record.
    /// </summary>
    public ushort RecordSize { get; init; }

    /// <summary>The one before kept that record: so must this one, or requests are lost.</summary>
    public bool MustRecord { get; init; }
}
