using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// What cutting and sending know together: settings, the spool, and who waits for whom. Settings are on the disk before they count.
/// Thread-safe.
/// </summary>
/// <param name="id">The VM's id.</param>
/// <param name="name">Its name.</param>
/// <param name="settings">As the inventory has them.</param>
/// <param name="parts">What all use.</param>
/// <param name="status">Where it stands.</param>
// Its semaphore is not disposed: it has no handle as long as nobody asks for one.
#pragma warning disable CA1001
internal sealed class ReplicaLedger(string id, string name, ReplicaSettings settings, ReplicaParts parts, ReplicaStatus status)
#pragma warning restore CA1001
{
    private readonly Lock _gate = new();
    private volatile ReplicaSettings _settings = settings;
    private volatile ReplicaSpool? _spool;

    /// <summary>The VM's id.</summary>
    internal string Id => id;

    /// <summary>Its name.</summary>
    internal string Name => name;

    /// <summary>What all use.</summary>
    internal ReplicaParts Parts => parts;

    /// <summary>Where it stands.</summary>
    internal ReplicaStatus Status => status;

    /// <summary>The folder of the spool and the hashes.</summary>
    internal string Folder => parts.FolderOf(name);

    /// <summary>What is wanted, and how far both sites are.</summary>
    internal ReplicaSettings Settings => _settings;

    /// <summary>Held by who changes the spool's hashes: a cut, or a resync.</summary>
    internal SemaphoreSlim Cutting { get; } = new(1, 1);

    /// <summary>Wakes who cuts.</summary>
    internal Signal Cut { get; } = new();

    /// <summary>Wakes who sends.</summary>
    internal Signal Send { get; } = new();

    /// <summary>A resync has fetched the other site's hashes; its cut is to be made. Changed by who holds <see cref="Cutting"/>.</summary>
    internal bool HasTrees { get; set; }

    /// <summary>Bytes of deltas that wait; 0 while the spool cannot be opened.</summary>
    internal ulong SpooledBytes => _spool?.Bytes ?? 0;

    /// <summary>Points that wait.</summary>
    internal int SpooledPoints => _spool?.Points.Count ?? 0;

    /// <summary>The newest point that was cut: of the spool, else the newest acknowledged one; empty without one.</summary>
    /// <exception cref="BlockException">The spool cannot be opened.</exception>
    internal Guid LastCut => RequireSpool().Points is { Count: > 0 } points ? points[^1].Point.Id : Acknowledged;

    /// <summary>The newest point that the other site has acknowledged; empty without one.</summary>
    internal Guid Acknowledged => Guid.TryParse(_settings.Newest, out Guid point) ? point : Guid.Empty;

    /// <summary>The spool; opened, or made, when it is needed first.</summary>
    /// <exception cref="BlockException">It cannot be.</exception>
    internal ReplicaSpool RequireSpool()
    {
        if (_spool is { } open)
        {
            return open;
        }

        lock (_gate)
        {
            if (_spool is null)
            {
                ReplicaSpool spool = ReplicaSpool.Open(Path.Combine(Folder, "spool"), Path.Combine(Folder, "trees"));
                if (spool.Lost is { } lost)
                {
                    status.Say("replica-failed", $"points that waited were damaged and are cut anew: {lost}");
                }

                _spool = spool;
            }

            return _spool;
        }
    }

    /// <summary>Changes settings; they are on the disk when this returns.</summary>
    /// <exception cref="Microsoft.Data.Sqlite.SqliteException">They cannot be written: nothing has changed.</exception>
    internal void Change(Func<ReplicaSettings, ReplicaSettings> change)
    {
        lock (_gate)
        {
            ReplicaSettings next = change(_settings);
            parts.Table.Save(id, next);
            _settings = next;
        }
    }

    /// <summary>A person's suspension that still holds; one whose time is over ends now.</summary>
    internal ReplicaSuspension? Held()
    {
        if (_settings.Suspension is not { } held)
        {
            return null;
        }

        if (held.Until > parts.Time.GetUtcNow())
        {
            return held;
        }

        Resume($"the suspension of {held.Owner} is over");
        return null;
    }

    /// <summary>A person's suspension ends.</summary>
    internal void Resume(string why)
    {
        Change(each => each with { Suspension = null });
        status.Release();
        status.Apply(ReplicaChange.Resumed, why);
        Cut.Set();
        Send.Set();
    }

    /// <summary>True when the newest point at the other site is older than two intervals.</summary>
    internal bool IsLate => status.AgeSeconds > 2.0 * _settings.IntervalSeconds;
}
