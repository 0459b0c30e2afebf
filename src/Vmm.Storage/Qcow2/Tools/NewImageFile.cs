using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// A file that gets its name when it is complete: it is written under a name of its own in the same folder, made stable, and renamed. A
/// crash leaves no half image under the name that was asked for.
/// </summary>
internal sealed class NewImageFile : IDisposable
{
    private readonly string _path, _temporary;
    private readonly bool _replace;
    private readonly RawImageFile? _old;
    private bool _complete;

    private NewImageFile(string path, bool replace)
    {
        _path = Target(System.IO.Path.GetFullPath(path));
        _replace = replace;
        string folder = System.IO.Path.GetDirectoryName(_path) ?? "/";
        _temporary = System.IO.Path.Combine(folder, $".{System.IO.Path.GetFileName(_path)}.{Environment.ProcessId}.part");
        if (System.IO.File.Exists(_path))
        {
            RequireFile(path, _path);
            _old = replace ? ImageFiles.Open(_path, writable: true) : throw Exists(path); // locked: nobody uses what is replaced
        }
        else if (Directory.Exists(_path))
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {path} is a directory") { Path = path };
        }

        try
        {
            using (new FileStream(_temporary, FileMode.CreateNew, FileAccess.ReadWrite))
            {
            }

            File = ImageFiles.Open(_temporary, writable: true);
        }
        catch
        {
            _old?.Dispose();
            throw;
        }
    }

    /// <summary>The file to fill.</summary>
    internal RawImageFile File { get; }

    /// <summary>Begins a file.</summary>
    /// <param name="path">The name it gets.</param>
    /// <param name="replace">A file of that name is replaced, when nobody uses it.</param>
    /// <exception cref="BlockException">It exists, is in use, or cannot be made.</exception>
    internal static NewImageFile Create(string path, bool replace)
    {
        try
        {
            return new NewImageFile(path, replace);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, $"disk {path} cannot be made: {e.Message}", e) { Path = path };
        }
    }

    /// <summary>It is whole: makes it stable and gives it its name.</summary>
    /// <exception cref="BlockException">The host failed, or another made a file of that name meanwhile.</exception>
    internal void Complete()
    {
        File.Flush();
        try
        {
            System.IO.File.Move(_temporary, _path, _replace);
            _complete = true;
            HostFolder.Flush(System.IO.Path.GetDirectoryName(_path) ?? "/");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {_path} cannot get its name: {e.Message}", e) { Path = _path };
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        File.Dispose();
        _old?.Dispose();
        if (!_complete)
        {
            System.IO.File.Delete(_temporary);
        }
    }

    // A link stays, and the file it names is the one that is made.
    private static string Target(string path) => new FileInfo(path) is { LinkTarget: not null } link
        ? link.ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? path
        : path;

    private static void RequireFile(string name, string path)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: false);
        if (!file.IsRegularFile)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {name} is a device, and only files are made and replaced here")
            { Path = name };
        }
    }

    private static BlockException Exists(string path) =>
        new(BlockErrorKind.InUse, $"disk {path} exists already; choose another name, or say --force to replace it") { Path = path };
}
