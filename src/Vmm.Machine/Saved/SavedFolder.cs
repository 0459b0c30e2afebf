using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Vmm.Interop;

namespace Vmm.Machine.Saved;

/// <summary>
/// A saved VM that is being written: a folder of a temporary name beside its own, until <see cref="Commit"/> gives it its name. What was
/// not committed is deleted.
/// </summary>
public sealed class SavedFolder : ISavedStore, IDisposable
{
    private readonly string _path, _temporary;
    private readonly List<SafeFileHandle> _files = [];
    private bool _isCommitted;

    /// <summary>Makes the folder. Only its owner can read it: guest memory holds secrets.</summary>
    /// <param name="path">Where it is to be; nothing is there.</param>
    /// <exception cref="IOException">Something is there, or the folder cannot be made.</exception>
    /// <exception cref="UnauthorizedAccessException">The folder may not be made here.</exception>
    public SavedFolder(string path)
    {
        _path = Path.GetFullPath(path);
        if (Path.Exists(_path))
        {
            throw new IOException($"{_path} exists already: a saved VM gets a folder of its own; name another one, or delete it");
        }

        _temporary = string.Create(CultureInfo.InvariantCulture, $"{_path}.partial-{Environment.ProcessId}");
        Directory.CreateDirectory(_temporary, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    /// <inheritdoc/>
    public void RequireRoom(ulong bytes)
    {
        ulong free = (ulong)new DriveInfo(_temporary).AvailableFreeSpace;
        if (free < bytes)
        {
            throw new IOException($"{_path}: the saved VM needs {bytes >> 20} MiB, and its file system has {free >> 20} MiB left");
        }
    }

    /// <inheritdoc/>
    public SafeFileHandle Create(string name)
    {
        string path = Path.Combine(_temporary, name);
        SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.Read);
        _files.Add(file);
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return file;
    }

    /// <summary>Everything is on the disk, under the folder's own name, when this returns.</summary>
    /// <exception cref="IOException">It could not be written.</exception>
    public void Commit()
    {
        foreach (SafeFileHandle file in _files)
        {
            RandomAccess.FlushToDisk(file);
        }

        Close();
        HostFolder.Flush(_temporary);
        Directory.Move(_temporary, _path);
        _isCommitted = true;
        HostFolder.Flush(Path.GetDirectoryName(_path)!);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Close();
        if (!_isCommitted)
        {
            Directory.Delete(_temporary, recursive: true);
        }
    }

    private void Close()
    {
        foreach (SafeFileHandle file in _files)
        {
            file.Dispose();
        }

        _files.Clear();
    }
}
