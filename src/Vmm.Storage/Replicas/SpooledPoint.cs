namespace Vmm.Storage.Replicas;

/// <summary>A point that waits in the spool: all its deltas are sealed and stable.</summary>
/// <param name="Number">Its place in the order.</param>
/// <param name="Folder">Its folder.</param>
/// <param name="Point">What it is.</param>
public sealed record SpooledPoint(int Number, string Folder, SealedPoint Point)
{
    /// <summary>Bytes of its deltas.</summary>
    public ulong Bytes => Point.Stored;

    /// <summary>The sealed delta of a disk.</summary>
    public string PathOf(string disk) => Path.Combine(Folder, disk + ReplicaSpool.DeltaSuffix);
}
