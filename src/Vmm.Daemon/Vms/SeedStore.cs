using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The seeds of VMs: a file each, for the daemon's own user only, under a name that nothing of its content is in. A new seed is a new file,
/// so that whatever dies, the inventory says which is the VM's; others are swept away by the next daemon.
/// </summary>
/// <param name="folder">Where; made when it is needed.</param>
internal sealed class SeedStore(string folder)
{
    private const string Suffix = ".iso";
    private const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private readonly string _folder = Path.GetFullPath(folder);

    /// <summary>Where a file of that name is.</summary>
    internal string PathOf(string file) => Path.Combine(_folder, file);

    /// <summary>The disk that a VM with that seed gets, behind its others.</summary>
    internal DiskSpec DiskOf(string file) => new() { Path = PathOf(file), ReadOnly = true, Cache = DiskCache.Buffered };

    /// <summary>Whether a path is that of a seed of this VM.</summary>
    internal bool Owns(string vmId, string path) => vmId.Length > 0 && Path.GetFileName(path) is var file
        && file.StartsWith(vmId + ".", StringComparison.Ordinal) && file.EndsWith(Suffix, StringComparison.Ordinal)
        && string.Equals(path, PathOf(file), StringComparison.Ordinal);

    /// <summary>Makes a file that is on the disk when this returns.</summary>
    /// <returns>Its name.</returns>
    /// <exception cref="IOException">It cannot be made.</exception>
    /// <exception cref="UnauthorizedAccessException">Nor may it be.</exception>
    internal string Add(string vmId, ReadOnlySpan<byte> content)
    {
        Directory.CreateDirectory(_folder, Owner | UnixFileMode.UserExecute);
        string name = $"{vmId}.{Guid.NewGuid():N}{Suffix}", path = PathOf(name);
        try
        {
            FileStreamOptions options = new() { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = Owner };
            using (FileStream file = new(path, options))
            {
                file.Write(content);
                file.Flush(flushToDisk: true);
            }

            HostFolder.Flush(_folder);
            return name;
        }
        catch
        {
            Delete(name);
            throw;
        }
    }

    /// <summary>Bytes of a file; 0 for one that is not there.</summary>
    internal long SizeOf(string file) => new FileInfo(PathOf(file)) is { Exists: true, Length: var length } ? length : 0;

    /// <summary>Deletes a file; one that stays is swept away by the next daemon.</summary>
    internal void Delete(string file)
    {
        try
        {
            File.Delete(PathOf(file));
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            _ = cause; // the folder was never made, say
        }
    }

    /// <summary>Deletes what no VM has: a daemon died amid a change.</summary>
    internal void Sweep(IReadOnlySet<string> used)
    {
        if (Directory.Exists(_folder))
        {
            foreach (string file in Directory.EnumerateFiles(_folder).Select(path => Path.GetFileName(path)).ToList())
            {
                if (!used.Contains(file))
                {
                    Delete(file);
                }
            }
        }
    }
}
