using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Moves;

/// <summary>The vmmd of another host that gets a VM, as the one that has it sees it. What it says is a stranger's word.</summary>
internal interface IMigrationPeer : IDisposable
{
    /// <summary>Offers a VM.</summary>
    /// <exception cref="PeerException">It refuses, which says why, or does not answer.</exception>
    Task<MigrationInfo> OfferAsync(MigrationOffer offer, CancellationToken cancellation);

    /// <summary>Opens a channel of the worker that gets the VM.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    Task<Stream> ChannelAsync(string id, int channel, CancellationToken cancellation);

    /// <summary>Where it stands.</summary>
    /// <exception cref="PeerException">It knows nothing of it, or does not answer.</exception>
    Task<MigrationInfo> StatusAsync(string id, CancellationToken cancellation);

    /// <summary>Asks for the VM to be taken; may be asked any number of times. The answer is a decision for good.</summary>
    /// <exception cref="PeerException">It does not answer: nothing is known.</exception>
    Task<MigrationInfo> CommitAsync(string id, CancellationToken cancellation);

    /// <summary>Gives it up, unless it is decided; may be asked any number of times. The answer is a decision for good.</summary>
    /// <exception cref="PeerException">It does not answer: nothing is known.</exception>
    Task<MigrationInfo> AbortAsync(string id, CancellationToken cancellation);
}

/// <summary>The other vmmd refuses, or does not answer.</summary>
/// <param name="code">Stable code for programs: the other one's, or <c>peer-unreachable</c> or <c>peer-lies</c>.</param>
/// <param name="message">For people.</param>
/// <param name="inner">The cause.</param>
internal sealed class PeerException(string code, string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>Stable code for programs.</summary>
    internal string Code => code;
}
