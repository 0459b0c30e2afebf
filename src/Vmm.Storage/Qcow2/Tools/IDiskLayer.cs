namespace Vmm.Storage.Qcow2.Tools;

/// <summary>One image of a chain, to be read without its backing file.</summary>
internal interface IDiskLayer : IDisposable
{
    /// <summary>The file.</summary>
    string Path { get; }

    /// <summary><c>raw</c> or <c>qcow2</c>.</summary>
    string Format { get; }

    /// <summary>Bytes of the disk.</summary>
    ulong Size { get; }

    /// <summary>Bytes of the file.</summary>
    ulong FileBytes { get; }

    /// <summary>The header of a qcow2 image; null for raw ones.</summary>
    Qcow2Header? Header { get; }

    /// <summary>The part that begins at a byte of the disk: at most so long.</summary>
    /// <exception cref="BlockException">The image is damaged there.</exception>
    DiskExtent Map(ulong offset, ulong most);

    /// <summary>Reads a part as <see cref="Map"/> gave it, from its beginning on.</summary>
    /// <exception cref="BlockException">The host failed, or compressed bytes are damaged.</exception>
    void Read(DiskExtent extent, Span<byte> destination);
}
