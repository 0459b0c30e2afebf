using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// The vmmd of a recovery site, as the primary sees it. What it says is a stranger's word: it is bounded and has sound values, and may be
/// a lie all the same.
/// </summary>
internal interface IReplicaPeer : IDisposable
{
    /// <summary>Makes the replica, or renews the pairing.</summary>
    /// <exception cref="PeerException">It refuses, which says why, or does not answer.</exception>
    Task<ReplicaSiteInfo> PairAsync(ReplicaOffer offer, CancellationToken cancellation);

    /// <summary>Where the replica stands; null: it has none of this VM.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task<ReplicaSiteInfo?> FindAsync(string vm, CancellationToken cancellation);

    /// <summary>Begins a point, or goes on with it.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task<ReplicaSiteInfo> OfferAsync(string vm, ReplicaPointOffer point, CancellationToken cancellation);

    /// <summary>Sends bytes of a disk's delta.</summary>
    /// <param name="vm">The VM's id.</param>
    /// <param name="point">The point's id.</param>
    /// <param name="disk">The disk.</param>
    /// <param name="offset">Where they begin.</param>
    /// <param name="bytes">The bytes.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <returns>Bytes of the delta that are stable there.</returns>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task<ulong> SendAsync(
        string vm, string point, string disk, ulong offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellation);

    /// <summary>All of a point is there: it is to be checked and put over the points before.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task<ReplicaSiteInfo> SealAsync(string vm, string point, CancellationToken cancellation);

    /// <summary>Hashes of the newest point there, 32 bytes an extent.</summary>
    /// <param name="vm">The VM's id.</param>
    /// <param name="disk">The disk.</param>
    /// <param name="from">The first extent.</param>
    /// <param name="count">How many; the answer has exactly so many.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task<byte[]> LeavesAsync(string vm, string disk, ulong from, int count, CancellationToken cancellation);

    /// <summary>The pairing ends; the points stay there.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task EndAsync(string vm, CancellationToken cancellation);
}
