using Microsoft.Win32.SafeHandles;

namespace Vmm.Machine.Saved;

/// <summary>Where a saved VM is read from.</summary>
public interface ISavedSource
{
    /// <summary>What errors call it.</summary>
    string Name { get; }

    /// <summary>Opens a file of it, owned by the caller; null when there is none of this name.</summary>
    /// <exception cref="IOException">It cannot be opened.</exception>
    SafeFileHandle? TryOpen(string name);
}

/// <summary>A saved VM in a folder.</summary>
/// <param name="path">The folder.</param>
internal sealed class SavedFolderSource(string path) : ISavedSource
{
    /// <inheritdoc/>
    public string Name => path;

    /// <inheritdoc/>
    public SafeFileHandle? TryOpen(string name)
    {
        string file = Path.Combine(path, name);
        return File.Exists(file) ? File.OpenHandle(file) : null;
    }
}
