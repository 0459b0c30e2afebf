using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>
/// A replica at the recovery site: its record, its points, and the point that comes. What changes the record takes turns; bytes of a point
/// take turns among themselves; a point is sealed in the background, and answers do not wait for it.
/// </summary>
internal sealed class Replica : IDisposable
{
    private const int LongestProblem = 500;
    private const ulong Slack = 256 << 20;

    private readonly SemaphoreSlim _turn = new(1, 1), _appends = new(1, 1); // neither has a handle
    private readonly ILogger _log;
    private readonly SemaphoreSlim _seals;
    private readonly CancellationTokenSource _ending = new();
    private readonly ReplicaFolder? _points;
    private readonly string? _damage;
    private volatile SiteRecord _record;
    private volatile Sealing? _sealing;

    /// <summary>Opens one that is there.</summary>
    /// <param name="folder">Its folder.</param>
    /// <param name="seals">How many points the host makes at once.</param>
    /// <param name="log">The log.</param>
    /// <exception cref="InvalidDataException">Its record says nothing sound.</exception>
    /// <exception cref="IOException">Its record cannot be read.</exception>
    internal Replica(string folder, SemaphoreSlim seals, ILogger log)
    {
        (Folder, _seals, _log, _record) = (folder, seals, log, SiteFile.Read(folder));
        if (!string.Equals(Path.GetFileName(folder), _record.Name, StringComparison.Ordinal))
        {
            throw new InvalidDataException($"{folder} has the record of another replica, {_record.Name}");
        }

        try
        {
            _points = ReplicaFolder.Open(PointsOf(folder));
            _damage = _points.Owner == Guid.Parse(_record.Vm) ? null : $"{_points.FolderPath} has points of another VM, {_points.Owner}";
        }
        catch (BlockException cause)
        {
            _damage = cause.Message; // it stays, and says so: nothing is deleted that nobody asked for
        }
    }

    /// <summary>Its folder.</summary>
    internal string Folder { get; }

    /// <summary>Held by what puts a VM on a point, and by what merges points: never both. It has no handle.</summary>
    internal SemaphoreSlim Use { get; } = new(1, 1);

    /// <summary>Held by a failover and what ends one: one at a time. It has no handle.</summary>
    internal SemaphoreSlim Failing { get; } = new(1, 1);

    /// <summary>Its record, as it is now.</summary>
    internal SiteRecord Record => _record;

    /// <summary>The VM's name at the primary.</summary>
    internal string Name => _record.Name;

    /// <summary>Why its points cannot be used; null: they can.</summary>
    internal string? Damage => _damage;

    /// <summary>Its points.</summary>
    /// <exception cref="ApiException">They cannot be used.</exception>
    internal ReplicaFolder Points => _damage is null ? _points! : throw new ApiException(
        409, "replica-damaged", "the replica cannot be used", $"{Name}: {_damage}");

    /// <summary>Is called when a point was added; may be called on any thread.</summary>
    internal Action<Replica, ArrangedPoint>? Arrived { get; init; }

    /// <summary>Where points of a replica are.</summary>
    internal static string PointsOf(string folder) => Path.Combine(folder, "points");

    /// <summary>What a peer is told.</summary>
    internal ReplicaSiteInfo SiteInfo()
    {
        SiteRecord record = _record;
        ArrangedPoint? newest = Points.Newest;
        return new ReplicaSiteInfo(
            record.Vm,
            record.State,
            record.Generations,
            newest?.Point.Id.ToString() ?? "",
            [.. (newest?.Point.Disks ?? []).Select(disk => new ReplicaPointDisk(
                disk.Name, disk.Bytes, disk.Stored, disk.Seal, disk.Root, disk.Why))],
            IntakeInfo(),
            Free());
    }

    /// <summary>How far the point has come that comes; null: none does.</summary>
    internal ReplicaIntakeInfo? IntakeInfo()
    {
        (Sealing? sealing, ReplicaIntake? intake) = (_sealing, _points?.Intake);
        return sealing is { Problem: { } problem } ? new ReplicaIntakeInfo(sealing.Id, intake?.Arrived ?? [], Problem: problem)
            : intake is null ? null
            : new ReplicaIntakeInfo(intake.Point.Id.ToString(), intake.Arrived, sealing is not null);
    }

    /// <summary>Changes the record; it is stable when this returns, or nothing has changed.</summary>
    /// <param name="change">The change, or what refuses it.</param>
    /// <param name="cancellation">Ends the waiting for others.</param>
    /// <exception cref="ApiException">It is refused, or cannot be written.</exception>
    internal async Task<SiteRecord> ChangeAsync(Func<SiteRecord, SiteRecord> change, CancellationToken cancellation)
    {
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            SiteRecord changed = change(_record);
            if (changed != _record)
            {
                SiteFile.Write(Folder, changed);
                _record = changed;
            }

            return changed;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            throw new ApiException(507, "no-space", "the record cannot be written", $"{Name}: {Folder}: {cause.Message}", inner: cause);
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>The primary offers a point, or goes on with one.</summary>
    /// <exception cref="ApiException">It is refused; the newest point stays.</exception>
    internal async Task<ReplicaSiteInfo> OfferAsync(ReplicaPointOffer offer, CancellationToken cancellation)
    {
        _ = OfferRules.Require(offer, TimeProvider.System.GetUtcNow());
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            SiteRecord record = _record;
            Guid id = Guid.Parse(offer.Id);
            if (Points.Find(id) is null && !IsSealing(offer.Id))
            {
                RequireWelcome(record, offer);
                _ = Guarded(() => Points.BeginIntake(PointOf(record, offer)));
                _sealing = null;
            }

            return SiteInfo();
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Bytes of a disk's delta arrive.</summary>
    /// <param name="point">The point that comes.</param>
    /// <param name="disk">The disk.</param>
    /// <param name="offset">Where they belong.</param>
    /// <param name="body">The bytes.</param>
    /// <param name="buffer">Takes them; as many as it has are the most.</param>
    /// <param name="cancellation">The peer left, or takes too long.</param>
    /// <returns>How many of the delta are stable.</returns>
    /// <exception cref="ApiException">They are refused; what had arrived stays.</exception>
    internal async Task<ReplicaArrived> AppendAsync(
        string point, string disk, ulong offset, Stream body, Memory<byte> buffer, CancellationToken cancellation)
    {
        await _appends.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ReplicaIntake intake = RequireIntake(point);
            int length = await body.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellation).ConfigureAwait(false);
            if (length == buffer.Length)
            {
                throw new ApiException(413, "too-large", "the request cannot be read",
                    $"{Name}: {disk}: at most {buffer.Length - 1} bytes of a delta are taken at once");
            }

            ulong arrived = 0;
            bool isTaken = Guarded(() => intake.TryAppend(disk, offset, buffer.Span[..length], out arrived));
            return isTaken ? new ReplicaArrived(arrived) : throw new ApiException(409, "replica-offset", "the bytes belong elsewhere",
                $"{Name}: {disk}: {arrived} bytes of its delta have arrived, and these belong at {offset}: go on at {arrived}");
        }
        finally
        {
            _appends.Release();
        }
    }

    /// <summary>All of a point has arrived: it is checked and arranged in the background. May be asked again.</summary>
    /// <exception cref="ApiException">Bytes are missing, or the point is not the one that comes.</exception>
    internal async Task<ReplicaSiteInfo> SealAsync(string point, CancellationToken cancellation)
    {
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (!IsSealing(point) && (!Guid.TryParse(point, out Guid id) || Points.Find(id) is null))
            {
                _ = ReplicaStates.Next(Name, _record.State, ReplicaEvent.Point);
                ReplicaIntake intake = RequireIntake(point);
                if (!intake.IsComplete)
                {
                    throw new ApiException(409, "replica-incomplete", "the point has not arrived",
                        $"{Name}: point {point}: {string.Join(", ", intake.Point.Disks.Select((disk, i) =>
                            $"{intake.Arrived[i]} of {disk.Stored} bytes of {disk.Name}"))} are here");
                }

                Sealing sealing = new(point);
                _sealing = sealing;
                sealing.Work = Task.Run(() => MakeAsync(sealing, intake), CancellationToken.None);
            }

            return SiteInfo();
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Hashes of the newest point.</summary>
    /// <returns>How many bytes of <paramref name="leaves"/> are hashes.</returns>
    /// <exception cref="ApiException">There is no such disk.</exception>
    internal int LeavesOf(string disk, ulong from, Memory<byte> leaves) => Guarded(() => 32 * Points.LeavesOf(disk, from, leaves.Span));

    /// <summary>Waits until no point is being sealed, so that the newest one is known.</summary>
    internal async Task SettleAsync(CancellationToken cancellation)
    {
        if (_sealing is { Work: { } work })
        {
            await work.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Calls what uses points; an error of theirs is an answer.</summary>
    /// <exception cref="ApiException">It failed.</exception>
    internal T Guarded<T>(Func<T> call)
    {
        try
        {
            return call();
        }
        catch (BlockException cause)
        {
            string what = $"{Name}: {cause.Message}";
            throw cause switch
            {
                { Status: DiskStatus.NoSpace, Kind: BlockErrorKind.Io } =>
                    new ApiException(507, "no-space", "not enough space", what, inner: cause),
                { Kind: BlockErrorKind.NotFound } => new ApiException(404, "replica-no-disk", "no such disk", what, inner: cause),
                { Kind: BlockErrorKind.Damaged } => new ApiException(409, "replica-parent", "the point does not fit", what, inner: cause),
                _ => new ApiException(409, "replica-damaged", "the replica cannot be used", what, inner: cause),
            };
        }
    }

    /// <summary>Stops what goes on, and lets go of the folder.</summary>
    public void Dispose()
    {
        _ending.Cancel();
        try
        {
            _sealing?.Work?.Wait(TimeSpan.FromSeconds(5));
        }
        catch (AggregateException)
        {
            _sealing = null; // it was told when it failed
        }

        _points?.Dispose();
        _ending.Dispose();
    }

    private async Task MakeAsync(Sealing sealing, ReplicaIntake intake)
    {
        bool isMine = false;
        try
        {
            await _seals.WaitAsync(_ending.Token).ConfigureAwait(false);
            isMine = true;
            ArrangedPoint made = intake.Seal(new ToolProgress(null, _ending.Token));
            _sealing = null;
            DaemonLog.PointArrived(_log, Name, made.Number, made.Point.Time);
            Arrived?.Invoke(this, made);
        }
        catch (OperationCanceledException)
        {
            sealing.Problem = "vmmd ends";
        }
        catch (Exception cause) when (cause is BlockException or IOException or UnauthorizedAccessException)
        {
            string problem = Contracts.SafeText.Line(cause.Message, LongestProblem);
            DaemonLog.PointRefused(_log, Name, sealing.Id, problem);
            if (cause is not BlockException { Status: DiskStatus.NoSpace, Kind: BlockErrorKind.Io }) // what has arrived is sound then
            {
                TryDrop(intake);
            }

            sealing.Problem = problem;
        }
        finally
        {
            if (isMine)
            {
                _seals.Release();
            }
        }
    }

    private void TryDrop(ReplicaIntake intake)
    {
        try
        {
            intake.Drop();
        }
        catch (BlockException cause)
        {
            DaemonLog.PointRefused(_log, Name, intake.Point.Id.ToString(), cause.Message);
        }
    }

    /// <exception cref="ApiException">Another point is being sealed.</exception>
    private bool IsSealing(string point)
    {
        if (_sealing is not { Problem: null } sealing)
        {
            return false;
        }

        return string.Equals(sealing.Id, point, StringComparison.Ordinal) ? true : throw new ApiException(
            409, "replica-sealing", "another point is being checked", $"{Name}: point {sealing.Id} is being checked: ask again");
    }

    private ReplicaIntake RequireIntake(string point)
    {
        if (Points.Intake is not { } intake || !string.Equals(intake.Point.Id.ToString(), point, StringComparison.Ordinal))
        {
            throw new ApiException(
                404, "replica-no-point", "no such point comes", $"{Name}: point {point} was not offered, or was dropped");
        }

        return !IsSealing(point) ? intake : throw new ApiException(
            409, "replica-sealing", "the point is being checked", $"{Name}: all of point {point} is here, and it is being checked");
    }

    private void RequireWelcome(SiteRecord record, ReplicaPointOffer offer)
    {
        _ = ReplicaStates.Next(Name, record.State, ReplicaEvent.Point);
        if (!record.IsPaired)
        {
            throw new ApiException(409, "replica-unpaired", "the pairing has ended", $"{Name}: its primary has ended it: offer it anew");
        }

        if (!string.Equals(offer.Generation, record.Generations.Current, StringComparison.Ordinal))
        {
            throw new ApiException(409, "replica-generation", "the point is of another history",
                $"{Name}: the point is of generation {offer.Generation}, and the replica of {record.Generations.Current}");
        }

        if (offer.Disks.FirstOrDefault(disk => !record.Disks.Any(known => string.Equals(known.Name, disk.Name, StringComparison.Ordinal)))
            is { } stranger)
        {
            throw OfferRules.Refused($"{Name}: {stranger.Name} was not offered with the replica: offer that anew with it");
        }

        ReplicaIntake? coming = Points.Intake;
        bool goesOn = coming is not null && string.Equals(coming.Point.Id.ToString(), offer.Id, StringComparison.Ordinal);
        ulong stored = offer.Disks.Aggregate(0ul, (sum, disk) => sum + disk.Stored);
        ulong here = goesOn ? coming!.Arrived.Aggregate(0ul, (sum, bytes) => sum + bytes) : 0;
        ulong needed = (2 * stored) - Math.Min(here, stored) + Slack, free = Free(); // the delta, and the image that is made of it
        if (free < needed)
        {
            throw new ApiException(507, "no-space", "not enough space", $"{Name}: the point needs {needed >> 20} MiB, and {Folder} has "
                + $"{free >> 20} MiB free: make room there, or keep fewer points");
        }
    }

    private static SealedPoint PointOf(SiteRecord record, ReplicaPointOffer offer) => new()
    {
        Id = Guid.Parse(offer.Id),
        Parent = offer.Parent.Length == 0 ? Guid.Empty : Guid.Parse(offer.Parent),
        Owner = Guid.Parse(record.Vm),
        Generation = Guid.Parse(offer.Generation),
        Time = offer.Time,
        Quiesced = offer.Quiesced,
        IsLast = offer.IsLast,
        Spec = offer.Spec,
        Variables = offer.Variables,
        Disks = [.. offer.Disks.Select(disk => new SealedDisk(disk.Name, disk.Bytes, disk.Stored, disk.Seal, disk.Root, disk.Why))],
    };

    private ulong Free() => (ulong)new DriveInfo(Folder).AvailableFreeSpace;

    /// <summary>A point that is being made of what has arrived.</summary>
    /// <param name="id">The point.</param>
    private sealed class Sealing(string id)
    {
        private volatile string? _problem;

        internal string Id => id;

        internal Task? Work { get; set; }

        internal string? Problem { get => _problem; set => _problem = value; }
    }
}
