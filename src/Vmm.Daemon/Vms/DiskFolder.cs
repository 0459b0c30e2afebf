using System.Collections.Concurrent;
using Vmm.Contracts.Rest;
using Vmm.Interop;
using Vmm.Storage;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The folder in which the daemon makes disks. A disk is a regular file directly in it; links are not followed and nothing is overwritten.
/// </summary>
internal sealed class DiskFolder
{
    private const int ChunkBytes = 1 << 20, SectorBytes = 512;
    private const long MostBytes = 1L << 46;
    private const string Unfinished = ".part";
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private readonly string _folder;
    private readonly VmManager _vms;
    private readonly Action<string> _flush;
    private readonly ConcurrentDictionary<string, bool> _making = new(StringComparer.Ordinal);

    /// <summary>Makes the folder, and removes what an earlier daemon did not finish.</summary>
    /// <param name="folder">Where disks are.</param>
    /// <param name="vms">Who uses them.</param>
    /// <param name="flush">Writes the entries of a folder to the disk; null: <see cref="HostFolder.Flush"/>.</param>
    internal DiskFolder(string folder, VmManager vms, Action<string>? flush = null)
    {
        (_folder, _vms, _flush) = (folder, vms, flush ?? HostFolder.Flush);
        Directory.CreateDirectory(folder, OwnerOnly | UnixFileMode.UserExecute);
        foreach (string left in Directory.EnumerateFiles(folder, ".*" + Unfinished))
        {
            File.Delete(left);
        }
    }

    /// <summary>All disks, by name.</summary>
    internal DiskList List() =>
        new([.. new DirectoryInfo(_folder)
            .EnumerateFiles()
            .Where(f => IsName(f.Name) && f.LinkTarget is null)
            .OrderBy(f => f.Name, StringComparer.Ordinal)
            .Select(Describe)]);

    /// <summary>One disk.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal DiskInfo Get(string name) => Describe(Find(name));

    /// <summary>Checks a wish before there is a job for it.</summary>
    /// <returns>What makes the disk.</returns>
    /// <exception cref="ApiException">It makes no sense, or the name is taken.</exception>
    internal Func<Action<double>, CancellationToken, Task> Prepare(DiskRequest wish)
    {
        string? wrong = !IsName(wish.Name) ? "name: expected 1 to 128 letters, digits, . _ -, not beginning with a dot"
            : wish.SizeBytes is < SectorBytes or > MostBytes || wish.SizeBytes % SectorBytes != 0
                ? $"sizeBytes: {wish.SizeBytes}, expected {SectorBytes} to {MostBytes}, a multiple of {SectorBytes}"
            : !string.Equals(wish.Format, "raw", StringComparison.Ordinal) ? "format: expected raw"
            : null;
        if (wrong is not null)
        {
            throw new ApiException(422, "disk-invalid", "such a disk cannot be made", wrong);
        }

        string path = Path.Combine(_folder, wish.Name);
        if (new FileInfo(path) is { Exists: true } or { LinkTarget: not null } || Directory.Exists(path) || _making.ContainsKey(wish.Name))
        {
            throw Taken(wish.Name);
        }

        if (wish.Preallocate && new DriveInfo(_folder).AvailableFreeSpace < wish.SizeBytes)
        {
            throw new ApiException(507, "no-space", "not enough space",
                $"{wish.Name}: {_folder} has {new DriveInfo(_folder).AvailableFreeSpace} bytes free, {wish.SizeBytes} are asked for");
        }

        return (progress, cancellation) => Make(path, wish, progress, cancellation);
    }

    /// <summary>Deletes a disk.</summary>
    /// <exception cref="ApiException">There is none, or a spec names it.</exception>
    internal void Remove(string name)
    {
        using IDisposable held = _vms.Disks.Delete(Find(name).FullName);
        DiskInfo disk = Get(name);
        if (disk.UsedBy.Count > 0)
        {
            throw new ApiException(
                409, "disk-in-use", "the disk is in use", $"{name} is in the spec of {string.Join(", ", disk.UsedBy)}: change that first");
        }

        RequireUnlocked(disk);
        File.Delete(disk.Path);
        _flush(_folder); // what was answered as deleted does not come back
    }

    /// <summary>No VM has it, as an image below its own or in a spec that was changed since, and no tool.</summary>
    private void RequireUnlocked(DiskInfo disk)
    {
        try
        {
            RawFileOptions alone = new() { IsImage = true, Cache = DiskCacheMode.Buffered, VmOf = _vms.NameOf };
            RawFileBackend.Open(disk.Path, alone).Dispose();
        }
        catch (BlockException e) when (e.Kind == BlockErrorKind.InUse)
        {
            throw new ApiException(409, "disk-in-use", "the disk is in use", e.Message, inner: e);
        }
    }

    private Task Make(string path, DiskRequest wish, Action<double> progress, CancellationToken cancellation)
    {
        string part = Path.Combine(_folder, "." + wish.Name + Unfinished);
        if (!_making.TryAdd(wish.Name, true))
        {
            throw Taken(wish.Name); // another job of the same moment was first
        }

        try
        {
            using (FileStream file = new(part, new FileStreamOptions
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.ReadWrite,
                Share = FileShare.None,
                BufferSize = 0,
                UnixCreateMode = OwnerOnly
            }))
            {
                file.SetLength(wish.SizeBytes);
                byte[] zeros = wish.Preallocate ? new byte[ChunkBytes] : [];
                for (long at = 0; wish.Preallocate && at < wish.SizeBytes; at += ChunkBytes)
                {
                    cancellation.ThrowIfCancellationRequested();
                    RandomAccess.Write(file.SafeFileHandle, zeros.AsSpan(0, (int)Math.Min(ChunkBytes, wish.SizeBytes - at)), at);
                    progress(0.99 * at / wish.SizeBytes); // the last hundredth is the flush
                }

                RandomAccess.FlushToDisk(file.SafeFileHandle);
            }

            cancellation.ThrowIfCancellationRequested();
            File.Move(part, path, overwrite: false);
            _flush(_folder); // the name, too, is on the disk when the job is done (fsync(2))
            return Task.CompletedTask;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ApiException(507, "disk-create-failed", "the disk could not be made", $"{wish.Name}: {e.Message}", inner: e);
        }
        finally
        {
            File.Delete(part);
            _making.TryRemove(wish.Name, out _);
        }
    }

    private ApiException Taken(string name) =>
        new(409, "name-taken", "the name is taken", $"{name}: there is a file of this name in {_folder}");

    private FileInfo Find(string name) =>
        IsName(name) && new FileInfo(Path.Combine(_folder, name)) is { Exists: true, LinkTarget: null } file
            ? file
            : throw new ApiException(404, "disk-not-found", "no such disk", $"{name}: there is no disk of this name in {_folder}");

    private DiskInfo Describe(FileInfo file) => new(file.Name, file.FullName, file.Length, _vms.UsersOf(file.FullName));

    private static bool IsName(string? name) =>
        name is { Length: > 0 and <= 128 } && name[0] != '.' && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');
}
