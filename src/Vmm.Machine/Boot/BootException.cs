namespace Vmm.Machine.Boot;

/// <summary>A kernel or initrd cannot be booted: names the file, the field, where it lies in the file, and why.</summary>
public sealed class BootException : Exception
{
    /// <summary>Creates the error; <paramref name="offset"/> is the field's place in the file, null when the whole file is meant.</summary>
    public BootException(string file, string field, ulong? offset, string problem)
        : base(offset is { } at ? $"{file}: {field} (offset 0x{at:x}): {problem}" : $"{file}: {field}: {problem}")
    {
        File = file;
        Field = field;
        Offset = offset;
    }

    /// <summary>The file as the user named it.</summary>
    public string File { get; }

    /// <summary>The field, in the words of its specification.</summary>
    public string Field { get; }

    /// <summary>Offset of the field in the file, bytes.</summary>
    public ulong? Offset { get; }
}
