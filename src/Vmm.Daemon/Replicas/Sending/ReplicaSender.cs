using System.Buffers;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>Sends one point of the spool, from what has arrived on, until the other site has it. One at a time.</summary>
/// <param name="vm">The VM's id.</param>
/// <param name="slots">What may be sent at once by all VMs of this host.</param>
/// <param name="time">The clock.</param>
/// <param name="isHeld">Looks whether sending has to wait.</param>
/// <param name="sent">Hears of bytes that are stable there.</param>
internal sealed class ReplicaSender(string vm, SemaphoreSlim slots, TimeProvider time, Func<bool> isHeld, Action<ulong> sent)
{
    private const int MostOffers = 3;
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(500), s_longestSeal = TimeSpan.FromHours(1);

    private readonly SendPace _pace = new(time);

    /// <summary>Sends a point.</summary>
    /// <param name="peer">The recovery site.</param>
    /// <param name="point">The point.</param>
    /// <param name="bytesPerSecond">Most bytes to send in a second.</param>
    /// <param name="cancellation">Gives up; sending goes on where it was the next time.</param>
    /// <returns>The site, whose newest point it is; null: sending has to wait.</returns>
    /// <exception cref="PeerException">The site refuses, lies, or does not answer.</exception>
    /// <exception cref="BlockException">The spool cannot be read.</exception>
    internal async Task<ReplicaSiteInfo?> SendAsync(
        IReplicaPeer peer, SpooledPoint point, ulong? bytesPerSecond, CancellationToken cancellation)
    {
        string id = point.Point.Id.ToString("D");
        for (int offers = 1; ; offers++)
        {
            ReplicaSiteInfo site = await peer.OfferAsync(vm, OfferOf(point.Point), cancellation).ConfigureAwait(false);
            if (Has(site, id))
            {
                return site;
            }

            try
            {
                return await SendDisksAsync(peer, point, ArrivedOf(site, point.Point), bytesPerSecond, cancellation).ConfigureAwait(false)
                    ? await SealAsync(peer, id, cancellation).ConfigureAwait(false)
                    : null;
            }
            catch (PeerException other) when (other.Code is PeerWords.Offset && offers < MostOffers)
            {
                // It has more or less than it said: its disk was full, say, or it was started anew.
            }
        }
    }

    /// <summary>A point as it is offered.</summary>
    internal static ReplicaPointOffer OfferOf(SealedPoint point) => new(
        point.Id.ToString("D"),
        point.Parent == Guid.Empty ? "" : point.Parent.ToString("D"),
        point.Generation.ToString("D"),
        point.Time,
        point.IsLast,
        point.Spec,
        [.. point.Disks.Select(disk => new ReplicaPointDisk(disk.Name, disk.Bytes, disk.Stored, disk.Seal, disk.Root, disk.Why))],
        point.Quiesced,
        point.Variables);

    private static bool Has(ReplicaSiteInfo site, string id) => string.Equals(site.Newest, id, StringComparison.OrdinalIgnoreCase);

    private IReadOnlyList<ulong> ArrivedOf(ReplicaSiteInfo site, SealedPoint point) =>
        site.Intake is { Arrived: { } arrived } intake && Guid.TryParse(intake.Id, out Guid comes) && comes == point.Id
            && arrived.Count == point.Disks.Count && arrived.Zip(point.Disks).All(each => each.First <= each.Second.Stored)
            ? arrived
            : throw new PeerException("peer-lies", $"{vm}: the recovery site does not say how much of point {point.Id} it has");

    private async Task<bool> SendDisksAsync(
        IReplicaPeer peer, SpooledPoint point, IReadOnlyList<ulong> arrived, ulong? bytesPerSecond, CancellationToken cancellation)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(SendPace.Request(bytesPerSecond));
        try
        {
            for (int i = 0; i < arrived.Count; i++)
            {
                SealedDisk disk = point.Point.Disks[i];
                using FileStream delta = ReplicaSpool.Open(point, disk.Name);
                for (ulong at = arrived[i]; at < disk.Stored;)
                {
                    if (isHeld())
                    {
                        return false;
                    }

                    Memory<byte> part = buffer.AsMemory(0, (int)Math.Min((ulong)SendPace.Request(bytesPerSecond), disk.Stored - at));
                    await ReadAsync(delta, at, part, cancellation).ConfigureAwait(false);
                    at = await SendPartAsync(peer, point.Point, disk.Name, at, part, cancellation).ConfigureAwait(false);
                    sent((ulong)part.Length);
                    await _pace.AfterAsync(part.Length, bytesPerSecond, cancellation).ConfigureAwait(false);
                }
            }

            return true;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async Task<ulong> SendPartAsync(
        IReplicaPeer peer, SealedPoint point, string disk, ulong at, ReadOnlyMemory<byte> part, CancellationToken cancellation)
    {
        await slots.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            return await peer.SendAsync(vm, point.Id.ToString("D"), disk, at, part, cancellation).ConfigureAwait(false);
        }
        finally
        {
            slots.Release();
        }
    }

    private static async Task ReadAsync(FileStream delta, ulong at, Memory<byte> part, CancellationToken cancellation)
    {
        try
        {
            delta.Position = (long)at;
            await delta.ReadExactlyAsync(part, cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            throw new BlockException(BlockErrorKind.Io, $"spool {delta.Name} cannot be read: {cause.Message}", cause) { Path = delta.Name };
        }
    }

    private async Task<ReplicaSiteInfo> SealAsync(IReplicaPeer peer, string id, CancellationToken cancellation)
    {
        long began = time.GetTimestamp();
        int asked = 1;
        ReplicaSiteInfo? site = await peer.SealAsync(vm, id, cancellation).ConfigureAwait(false);
        while (true)
        {
            if (site is not null && Has(site, id))
            {
                return site;
            }

            if (site?.Intake is not { } intake || !string.Equals(intake.Id, id, StringComparison.OrdinalIgnoreCase))
            {
                // It may have been put there between its look at the newest point and that at what comes.
                site = await peer.FindAsync(vm, cancellation).ConfigureAwait(false);
                if (site is not null && Has(site, id))
                {
                    return site;
                }

                throw new PeerException(ReplicaProblem.Refused, $"{vm}: the recovery site has dropped point {id}");
            }

            if (intake.Problem is { } problem)
            {
                throw new PeerException(ReplicaProblem.Refused, $"{vm}: the recovery site refuses point {id}: {problem}");
            }

            // One that was started anew has to be asked again.
            if ((!intake.Sealing && ++asked > MostOffers) || time.GetElapsedTime(began) > s_longestSeal)
            {
                throw new PeerException("peer-lies", $"{vm}: the recovery site does not come to an end with point {id}");
            }

            await Task.Delay(s_poll, time, cancellation).ConfigureAwait(false);
            site = intake.Sealing
                ? await peer.FindAsync(vm, cancellation).ConfigureAwait(false)
                : await peer.SealAsync(vm, id, cancellation).ConfigureAwait(false);
        }
    }
}
