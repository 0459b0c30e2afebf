using System.Text.Json;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Moves;

/// <summary>Another vmmd that gets a VM, by its REST interface.</summary>
/// <param name="at">Where it is.</param>
/// <param name="options">How we know each other.</param>
/// <exception cref="PeerException">A certificate cannot be read.</exception>
internal sealed class MigrationPeer(Uri at, PeerOptions options) : IMigrationPeer
{
    /// <summary>What channels switch to.</summary>
    internal const string Protocol = "vmm-move";

    private const int MostAnswer = 64 << 10;

    private readonly PeerConnection _connection = new(at, options, "/api/v1/migrations/", MostAnswer);

    /// <inheritdoc/>
    public Task<MigrationInfo> OfferAsync(MigrationOffer offer, CancellationToken cancellation) => AskAsync(
        HttpMethod.Post, "/api/v1/migrations", offer.Id, JsonSerializer.Serialize(offer, RestJson.Default.MigrationOffer), cancellation);

    /// <inheritdoc/>
    public Task<MigrationInfo> StatusAsync(string id, CancellationToken cancellation) =>
        AskAsync(HttpMethod.Get, id, id, null, cancellation);

    /// <inheritdoc/>
    public Task<MigrationInfo> CommitAsync(string id, CancellationToken cancellation) =>
        AskAsync(HttpMethod.Post, id + "/commit", id, null, cancellation);

    /// <inheritdoc/>
    public Task<MigrationInfo> AbortAsync(string id, CancellationToken cancellation) =>
        AskAsync(HttpMethod.Delete, id, id, null, cancellation);

    /// <inheritdoc/>
    public Task<Stream> ChannelAsync(string id, int channel, CancellationToken cancellation) =>
        _connection.UpgradeAsync(FormattableString.Invariant($"{id}/channels/{channel}"), Protocol, cancellation);

    /// <inheritdoc/>
    public void Dispose() => _connection.Dispose();

    private async Task<MigrationInfo> AskAsync(
        HttpMethod method, string path, string id, string? body, CancellationToken cancellation)
    {
        MigrationInfo? info =
            await _connection.AskAsync(method, path, body, RestJson.Default.MigrationInfo, cancellation).ConfigureAwait(false);
        return info is not null && string.Equals(info.Id, id, StringComparison.Ordinal) && Enum.IsDefined(info.State)
            ? info with { Problem = PeerConnection.Word(info.Problem) }
            : throw new PeerException("peer-lies", $"{_connection.At}: what it answers is not about this move");
    }
}
