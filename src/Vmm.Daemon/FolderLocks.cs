namespace Vmm.Daemon;

/// <summary>
/// One daemon per state folder and per run folder: a lock file in each, held while the daemon lives and gone with its process.
/// </summary>
internal sealed class FolderLocks : IDisposable
{
    private readonly List<FileStream> _held = [];

    private FolderLocks() { }

    /// <summary>Takes the lock of every folder.</summary>
    /// <exception cref="IOException">Another daemon has one of them; the folder is named.</exception>
    internal static FolderLocks Take(params ReadOnlySpan<string> folders)
    {
        FolderLocks locks = new();
        foreach (string folder in folders)
        {
            string file = Path.Combine(folder, "vmmd.lock");
            try
            {
                // FileShare.None is flock(2) with LOCK_EX here; the file stays, an unlocked one means nothing.
                locks._held.Add(new FileStream(file, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None));
            }
            catch (IOException e)
            {
                locks.Dispose();
                throw new IOException(
                    $"{folder} is in use by another vmmd (its lock {file} is held): stop that one, or use other --state and --run folders",
                    e);
            }
        }

        return locks;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FileStream held in _held)
        {
            held.Dispose();
        }

        _held.Clear();
    }
}
