using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Files that are about to be named by a spec, and files that are about to be deleted: never one in both. Who names holds a file from
/// before it is looked for until the spec is stored; who deletes holds it from before the specs are asked.
/// </summary>
internal sealed class DiskNames
{
    private readonly Lock _gate = new();
    private readonly Dictionary<string, int> _named = new(StringComparer.Ordinal);
    private readonly HashSet<string> _deleted = new(StringComparer.Ordinal);

    /// <summary>Holds the disks of a spec until it is disposed.</summary>
    /// <exception cref="ApiException">One is being deleted.</exception>
    internal IDisposable Name(IEnumerable<DiskSpec> disks)
    {
        string[] paths = [.. disks.Where(d => !d.IsRemote && d.Path.Length > 0).Select(d => Path.GetFullPath(d.Path, "/"))];
        lock (_gate)
        {
            if (Array.Find(paths, _deleted.Contains) is { } going)
            {
                throw new ApiException(409, "disk-in-use", "the disk is in use", $"{going} is being deleted");
            }

            foreach (string path in paths)
            {
                _named[path] = _named.GetValueOrDefault(path) + 1;
            }
        }

        return new Release(() =>
        {
            lock (_gate)
            {
                foreach (string path in paths)
                {
                    if (--_named[path] == 0)
                    {
                        _named.Remove(path);
                    }
                }
            }
        });
    }

    /// <summary>Holds a file that is to be deleted until it is disposed.</summary>
    /// <exception cref="ApiException">A spec is about to name it, or somebody else deletes it.</exception>
    internal IDisposable Delete(string path)
    {
        lock (_gate)
        {
            if (_named.ContainsKey(path) || !_deleted.Add(path))
            {
                throw new ApiException(409, "disk-in-use", "the disk is in use", $"{path}: another request is about to use or delete it");
            }
        }

        return new Release(() =>
        {
            lock (_gate)
            {
                _deleted.Remove(path);
            }
        });
    }

    private sealed class Release(Action release) : IDisposable
    {
        public void Dispose() => release();
    }
}
