namespace Vmm.Storage.Qcow2;

/// <summary>Clusters of a file that lie side by side.</summary>
/// <param name="First">Number of the first one.</param>
/// <param name="Count">How many.</param>
internal readonly record struct ClusterRun(ulong First, int Count)
{
    /// <summary>Number of the one behind the last.</summary>
    internal ulong End => First + (uint)Count;
}
