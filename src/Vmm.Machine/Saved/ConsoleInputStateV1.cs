namespace Vmm.Machine.Saved;

/// <summary>Input between user and guest, version 1; its shape never changes.</summary>
public sealed record ConsoleInputStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "console-input";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>What was taken from the user and no console has taken yet.</summary>
    public required byte[] Pending { get; init; }
}
