namespace Vmm.Storage.Qcow2;

/// <summary>What a write does next.</summary>
internal enum PlanKind : byte
{
    /// <summary>Writes into clusters that are its own.</summary>
    InPlace,

    /// <summary>Writes into clusters that become its own by it.</summary>
    Allocate,

    /// <summary>Writes zeros as data.</summary>
    ZerosAsData,

    /// <summary>A range was done in the tables alone; goes on.</summary>
    Done,

    /// <summary>The node loads a slice first; the operation waits for it.</summary>
    Load,

    /// <summary>The operation waits in a list.</summary>
    Parked,

    /// <summary>The operation needs memory to copy into first.</summary>
    NeedsFill,

    /// <summary>It failed.</summary>
    Failed,
}

/// <summary>A range of a write, and where it goes. Offsets and lengths in bytes.</summary>
internal struct WritePlan
{
    /// <summary>Where in the file the bytes from <see cref="Start"/> on go.</summary>
    internal ulong Host;

    /// <summary>
    /// First byte of the disk that is written: before the operation's own when what lies before it is copied.
    /// </summary>
    internal ulong Start;

    /// <summary>The first byte behind the operation's own in this range.</summary>
    internal ulong PayloadEnd;

    /// <summary>The first byte behind what is written.</summary>
    internal ulong Stop;

    /// <summary>What lies before, or behind, the operation's bytes in their clusters has to be copied.</summary>
    internal bool CopiesHead, CopiesTail;

    /// <summary>The clusters of the disk that get new places.</summary>
    internal ClusterRun Clusters;

    /// <summary>The clusters come from the pool; false: the one cluster has its place already.</summary>
    internal bool IsNew;

    /// <summary>Parts of the one cluster that the write covers; with extended entries.</summary>
    internal uint Parts;
}
