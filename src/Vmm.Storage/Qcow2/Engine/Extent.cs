namespace Vmm.Storage.Qcow2;

/// <summary>Where bytes of the disk are.</summary>
internal enum ExtentKind : byte
{
    /// <summary>In the file of a layer, as they are.</summary>
    Data,

    /// <summary>Nowhere: they are zeros.</summary>
    Zero,

    /// <summary>Compressed, in the file of a layer. The extent is within one cluster.</summary>
    Compressed,

    /// <summary>Not known before a slice is in memory.</summary>
    Missing,

    /// <summary>Not known: an entry of a table is not valid.</summary>
    Damaged,
}

/// <summary>A range of the disk that is in one place.</summary>
/// <param name="Kind">What kind of place.</param>
/// <param name="Length">Bytes of the range, at least 1 unless it is missing or damaged.</param>
/// <param name="Layer">Whose file or table.</param>
/// <param name="Place">Data: offset in the file. Compressed: the bits of the entry. Missing: the key of the slice. Damaged: the
/// entry.</param>
internal readonly record struct Extent(ExtentKind Kind, ulong Length, int Layer = 0, ulong Place = 0);
