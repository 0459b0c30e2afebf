namespace Vmm.Devices.Legacy;

/// <summary>Saved state of <see cref="I8042"/> and its keyboard, version 1; its shape never changes.</summary>
public sealed record KeyboardControllerStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "i8042";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Configuration byte.</summary>
    public required byte Configuration { get; init; }

    /// <summary>What the controller itself has to say; null: nothing.</summary>
    public byte? Answer { get; init; }

    /// <summary>The byte that was read last.</summary>
    public required byte Last { get; init; }

    /// <summary>The last byte went to the command port.</summary>
    public required bool LastWasCommand { get; init; }

    /// <summary>The command whose byte comes next at the data port; 0: none.</summary>
    public required byte Expects { get; init; }

    /// <summary>Bytes that the keyboard keeps, oldest first.</summary>
    public required byte[] KeyboardBytes { get; init; }

    /// <summary>The keyboard tells of keys.</summary>
    public required bool KeyboardScans { get; init; }

    /// <summary>The command of the keyboard whose parameter comes next; 0: none.</summary>
    public required byte KeyboardExpects { get; init; }
}
