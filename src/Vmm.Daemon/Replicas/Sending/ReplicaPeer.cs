using System.Globalization;
using System.Net.Http.Headers;
using System.Text.Json;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>The vmmd of a recovery site, by its REST interface.</summary>
/// <param name="at">Where it is.</param>
/// <param name="options">How we know each other.</param>
/// <exception cref="PeerException">A certificate cannot be read.</exception>
internal sealed class ReplicaPeer(Uri at, PeerOptions options) : IReplicaPeer
{
    /// <summary>Most leaves of an answer.</summary>
    internal const int MostLeaves = 65536;

    /// <summary>Bytes of a hash.</summary>
    internal const int HashBytes = 32;

    private const int MostAnswer = (MostLeaves * HashBytes) + (64 << 10);

    private readonly PeerConnection _connection = new(at, options, "/api/v1/replication/", MostAnswer);

    /// <inheritdoc/>
    public async Task<ReplicaSiteInfo> PairAsync(ReplicaOffer offer, CancellationToken cancellation) => Sound(offer.Vm, await SiteAsync(
        HttpMethod.Put, offer.Vm, JsonSerializer.Serialize(offer, RestJson.Default.ReplicaOffer), cancellation).ConfigureAwait(false));

    /// <inheritdoc/>
    public async Task<ReplicaSiteInfo?> FindAsync(string vm, CancellationToken cancellation)
    {
        try
        {
            return Sound(vm, await SiteAsync(HttpMethod.Get, vm, null, cancellation).ConfigureAwait(false));
        }
        catch (PeerException none) when (none.Code is PeerWords.NotFound)
        {
            return null;
        }
    }

    /// <inheritdoc/>
    public async Task<ReplicaSiteInfo> OfferAsync(string vm, ReplicaPointOffer point, CancellationToken cancellation) =>
        Sound(vm, await SiteAsync(
            HttpMethod.Post, vm + "/points", JsonSerializer.Serialize(point, RestJson.Default.ReplicaPointOffer), cancellation)
            .ConfigureAwait(false));

    /// <inheritdoc/>
    public async Task<ulong> SendAsync(
        string vm, string point, string disk, ulong offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellation)
    {
        ReadOnlyMemoryContent body = new(bytes);
        body.Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
        string path = string.Create(
            CultureInfo.InvariantCulture, $"{vm}/points/{point}/disks/{Uri.EscapeDataString(disk)}?offset={offset}");
        ReplicaArrived? arrived = await _connection.AskAsync(
            HttpMethod.Put, path, body, RestJson.Default.ReplicaArrived, cancellation).ConfigureAwait(false);
        return arrived?.Arrived == offset + (ulong)bytes.Length
            ? arrived.Arrived
            : throw Lies($"of {bytes.Length} bytes from {offset} on it says that {arrived?.Arrived} have arrived");
    }

    /// <inheritdoc/>
    public async Task<ReplicaSiteInfo> SealAsync(string vm, string point, CancellationToken cancellation) =>
        Sound(vm, await SiteAsync(HttpMethod.Post, $"{vm}/points/{point}/seal", null, cancellation).ConfigureAwait(false));

    /// <inheritdoc/>
    public async Task<byte[]> LeavesAsync(string vm, string disk, ulong from, int count, CancellationToken cancellation)
    {
        string path = string.Create(
            CultureInfo.InvariantCulture, $"{vm}/trees/{Uri.EscapeDataString(disk)}?from={from}&count={count}");
        byte[] leaves = await _connection.BytesAsync(path, cancellation).ConfigureAwait(false);
        return leaves.Length == count * HashBytes
            ? leaves
            : throw Lies($"{leaves.Length} bytes of hashes came for {count} extents of {disk}");
    }

    /// <inheritdoc/>
    public Task EndAsync(string vm, CancellationToken cancellation) => _connection.TellAsync(HttpMethod.Delete, vm, cancellation);

    /// <inheritdoc/>
    public void Dispose() => _connection.Dispose();

    private Task<ReplicaSiteInfo?> SiteAsync(HttpMethod method, string path, string? body, CancellationToken cancellation) =>
        _connection.AskAsync(method, path, body, RestJson.Default.ReplicaSiteInfo, cancellation);

    private ReplicaSiteInfo Sound(string vm, ReplicaSiteInfo? info) => PeerWords.ProblemOf(info, vm) is { } problem
        ? throw Lies(problem)
        : info! with { Intake = info.Intake is { } intake ? intake with { Problem = PeerConnection.Word(intake.Problem) } : null };

    private PeerException Lies(string what) => new("peer-lies", $"{_connection.At}: {what}");
}
