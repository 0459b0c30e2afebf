namespace Vmm.Devices.Legacy;

/// <summary>Saved state of <see cref="CmosRtc"/>, version 1; its shape never changes. The time is the host's.</summary>
public sealed record RtcStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "rtc-cmos";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The register that port 0x71 shows.</summary>
    public required byte Index { get; init; }

    /// <summary>Register B.</summary>
    public required byte RegisterB { get; init; }

    /// <summary>The 128 bytes of CMOS RAM, those of the clock's registers unused.</summary>
    public required byte[] Ram { get; init; }
}
