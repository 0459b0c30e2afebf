namespace Vmm.Storage.Replicas;

/// <summary>Extents of a disk that follow each other. An extent is 64 KiB.</summary>
/// <param name="First">The number of the first one.</param>
/// <param name="Count">How many; 1 or more.</param>
public readonly record struct ExtentRange(ulong First, ulong Count)
{
    /// <summary>The number behind the last one.</summary>
    public ulong End => First + Count;
}
