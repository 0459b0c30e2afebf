using Vmm.Storage.Changes;

namespace Vmm.Daemon.Vms;

/// <summary>The files of the change logs of one VM, opened when they are needed. Thread-safe.</summary>
/// <param name="folder">Where they are; null: there are none.</param>
/// <param name="tell">Takes what is wrong with one.</param>
internal sealed class ChangeLogFolder(Func<string?> folder, Action<string> tell) : IDisposable
{
    private const string Suffix = ".log";

    private readonly Lock _gate = new();
    private readonly Dictionary<string, ChangeLogFile> _open = new(StringComparer.Ordinal);

    /// <summary>Disks that have logs.</summary>
    internal IReadOnlyList<string> Names => folder() is { } place && Directory.Exists(place)
        ? [.. Directory.EnumerateFiles(place, "*" + Suffix).Select(file => Path.GetFileNameWithoutExtension(file))
            .Order(StringComparer.Ordinal)]
        : [];

    /// <summary>The log of a disk.</summary>
    /// <param name="disk">Its name.</param>
    /// <param name="reason">Why a new one would know nothing.</param>
    /// <returns>Null: there is none, or it is of no use.</returns>
    internal ChangeLogFile? TryOpen(string disk, out ChangeUnknown reason)
    {
        lock (_gate)
        {
            if (_open.TryGetValue(disk, out ChangeLogFile? known))
            {
                reason = ChangeUnknown.None;
                return known;
            }

            reason = ChangeUnknown.New;
            ChangeLogFile? file = PathOf(disk) is { } path ? ChangeLogFile.TryOpen(path, out string problem, out reason) : null;
            if (file is not null)
            {
                _open.Add(disk, file);
            }

            return file;
        }
    }

    /// <summary>The log of a disk, made when there is none, or none that is of use.</summary>
    /// <param name="disk">Its name.</param>
    /// <param name="bytes">Tells how large the disk is.</param>
    /// <exception cref="Vmm.Storage.BlockException">It cannot be made.</exception>
    internal ChangeLogFile OpenOrMake(string disk, Func<ulong> bytes)
    {
        lock (_gate)
        {
            if (TryOpen(disk, out ChangeUnknown reason) is { } file)
            {
                return file;
            }

            if (reason != ChangeUnknown.New)
            {
                tell($"{disk}: {reason.Describe()}: it begins anew");
            }

            // Later ones have larger numbers, also when the one before cannot be read.
            ulong generation = (ulong)TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();
            return _open[disk] = ChangeLogFile.Create(PathOf(disk)!, bytes(), generation, reason);
        }
    }

    /// <summary>There is no log of the disk any more.</summary>
    internal void Remove(string disk)
    {
        lock (_gate)
        {
            if (_open.Remove(disk, out ChangeLogFile? file))
            {
                file.Dispose();
            }

            string path = PathOf(disk)!, around = Path.GetDirectoryName(path)!;
            File.Delete(path);
            if (Directory.Exists(around) && !Directory.EnumerateFileSystemEntries(around).Any())
            {
                Directory.Delete(around);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            foreach (ChangeLogFile file in _open.Values)
            {
                file.Dispose();
            }

            _open.Clear();
        }
    }

    private string? PathOf(string disk) => folder() is { } place ? Path.Combine(place, disk + Suffix) : null;
}
