namespace Vmm.Devices.Virtio.Console;

/// <summary>Saved state of <see cref="VirtioConsole"/> while it keeps input, version 1; its shape never changes.</summary>
public sealed record ConsoleStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-console";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>What came for the guest, and it has not taken yet.</summary>
    public required byte[] Input { get; init; }
}
