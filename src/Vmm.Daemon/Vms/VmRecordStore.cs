using Microsoft.Extensions.Logging;
using Vmm.Daemon.Inventory;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The record of one VM: in memory for readers, in the inventory for the next daemon. A commit waits for the disk, so it is never made
/// under another lock; commits of one VM go one after the other, and each writes all that changed before it. Thread-safe.
/// </summary>
internal sealed class VmRecordStore
{
    private readonly Lock _lock = new(), _committing = new();
    private readonly VmTable _inventory;
    private readonly ILogger _log;
    private readonly SpecException? _problem;
    private VmRecord _record, _committed;
    private readonly SeedStore? _seeds;
    private VmSpec? _spec;
    private (VmSpec Bare, string File, VmSpec Whole)? _seeded; // made once
    private bool _removed; // under _committing

    /// <param name="record">What is stored.</param>
    /// <param name="inventory">Where it is stored.</param>
    /// <param name="log">The log.</param>
    /// <param name="seeds">Where its seed is; null: it can have none.</param>
    internal VmRecordStore(VmRecord record, VmTable inventory, ILogger log, SeedStore? seeds = null)
    {
        (_record, _committed, _inventory, _log, _seeds) = (record, record, inventory, log, seeds);
        try
        {
            _spec = SpecReader.Read(record.Spec, record.Name, FolderOf(record));
        }
        catch (SpecException e)
        {
            // Of another version, say. The VM can be shown, changed and deleted; only a start needs a sound spec.
            _problem = e;
            DaemonLog.SpecUnread(log, record.Name, e.Message);
        }
    }

    /// <summary>The record as it is in memory.</summary>
    internal VmRecord Record
    {
        get
        {
            lock (_lock)
            {
                return _record;
            }
        }
    }

    /// <summary>Its name, which never changes.</summary>
    internal string Name => Record.Name;

    /// <summary>Its spec, and its seed as the last disk; null when the stored text cannot be read.</summary>
    internal VmSpec? Spec
    {
        get
        {
            lock (_lock)
            {
                return _spec is { } bare && _record.Seed is { IsDeleted: false, File: var file } && _seeds is not null
                    ? WithSeed(bare, file)
                    : _spec;
            }
        }
    }

    /// <summary>Its spec.</summary>
    /// <exception cref="ApiException">The stored text cannot be read.</exception>
    internal VmSpec RequireSpec() => Spec ?? throw ApiException.OfSpec(_problem!);

    /// <summary>Its spec, without its seed.</summary>
    /// <exception cref="ApiException">The stored text cannot be read.</exception>
    internal VmSpec RequireBareSpec() => WithoutSeed(RequireSpec());

    /// <summary>Whether a disk is its seed.</summary>
    internal bool IsSeed(string path) => _seeds?.Owns(Record.Id, path) == true;

    /// <exception cref="ApiException">The record is at another revision.</exception>
    internal void RequireRevision(long? revision)
    {
        VmRecord record = Record;
        if (revision is { } expected && expected != record.Revision)
        {
            throw new ApiException(412, "revision-changed", "somebody changed it first",
                $"{record.Name} is at revision {record.Revision}, not {expected}: read it again");
        }
    }

    /// <summary>For what must not happen to a VM that may be another host's.</summary>
    /// <exception cref="ApiException">It may be.</exception>
    internal void RequireSettled()
    {
        if (Record.Move is { IsUnsettled: true, Peer: var peer })
        {
            throw new ApiException(409, "move-unsettled", "the VM may be another host's",
                $"{Name} was handed over to {peer}, which has not said yet whether it has it: it is asked again and again; bring it, or "
                    + $"the network, back. Is it lost for good: 'vmmctl vm settle {Name}'");
        }
    }

    /// <summary>Changes the record in memory; <see cref="Commit"/> writes it. Quick: may be called under another lock.</summary>
    internal void Change(Func<VmRecord, VmRecord> change)
    {
        lock (_lock)
        {
            _record = change(_record);
        }
    }

    /// <summary>Writes what changed in memory; returns when it, and everything that changed before, is on the disk.</summary>
    /// <exception cref="Microsoft.Data.Sqlite.SqliteException">It cannot be written.</exception>
    internal void Commit()
    {
        lock (_committing)
        {
            VmRecord record = Record;
            if (!_removed && !ReferenceEquals(record, _committed))
            {
                _inventory.Update(record);
                _committed = record;
            }
        }
    }

    /// <summary>As <see cref="Commit"/>, where nobody waits for the change: an error is logged, and the next commit tries again.</summary>
    internal void CommitOrLog()
    {
        try
        {
            Commit();
        }
#pragma warning disable CA1031 // In memory it stands; the next daemon finds a VM that should run and no worker, and says so.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.Unsaved(_log, e, Name);
        }
    }

    /// <summary>Stores another spec, as the next revision. Memory changes when it is written.</summary>
    /// <exception cref="Microsoft.Data.Sqlite.SqliteException">It cannot be written: nothing has changed.</exception>
    internal void WriteSpec(string text, VmSpec spec, string? folder = null)
    {
        VmRecord Changed(VmRecord record) => record with { Spec = text, Folder = folder ?? record.Folder, Revision = record.Revision + 1 };
        lock (_committing)
        {
            if (_removed)
            {
                return;
            }

            VmRecord written = Changed(Record);
            _inventory.Update(written);
            lock (_lock)
            {
                // What else changed in memory meanwhile (the end of a run) stays; its own commit follows.
                _record = Changed(_record);
                _committed = _record == written ? _record : written;
                _spec = WithoutSeed(spec);
            }
        }
    }

    /// <summary>Removes the record; nothing is written from then on.</summary>
    /// <exception cref="Microsoft.Data.Sqlite.SqliteException">It cannot be removed.</exception>
    internal void Remove()
    {
        lock (_committing)
        {
            _inventory.Remove(Record);
            _removed = true;
        }
    }

    // Under the lock.
    private VmSpec WithSeed(VmSpec bare, string file)
    {
        if (_seeded is not { } made || !ReferenceEquals(made.Bare, bare) || !string.Equals(made.File, file, StringComparison.Ordinal))
        {
            _seeded = made = (bare, file, bare with { Disks = [.. bare.Disks, _seeds!.DiskOf(file)] });
        }

        return made.Whole;
    }

    private VmSpec WithoutSeed(VmSpec spec) =>
        spec.Disks.Any(disk => IsSeed(disk.Path)) ? spec with { Disks = [.. spec.Disks.Where(disk => !IsSeed(disk.Path))] } : spec;

    /// <summary>What relative paths in its spec are relative to; null when it has none.</summary>
    internal static string? FolderOf(VmRecord record) => record.Folder.Length > 0 ? record.Folder : null;
}
