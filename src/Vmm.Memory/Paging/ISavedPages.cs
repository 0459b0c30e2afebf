namespace Vmm.Memory.Paging;

/// <summary>
/// The content of one memory as it was saved, which a pager gives to the guest when it is touched. A chunk is read as often as wanted and
/// is the same each time, or an error. Any number of threads.
/// </summary>
public interface ISavedPages : IDisposable
{
    /// <summary>Bytes of a chunk; the last one of a memory may be shorter.</summary>
    const int ChunkBytes = 1 << 20;

    /// <summary>False: all of the chunk is zeros, and it is never read.</summary>
    bool HasContent(ulong chunk);

    /// <summary>Reads a chunk, and checks it before this returns.</summary>
    /// <param name="chunk">Its number in the memory.</param>
    /// <param name="content">All of it, up to the end of the memory.</param>
    /// <exception cref="SavedPagesException">It cannot be read, or is not what was saved.</exception>
    void Read(ulong chunk, Span<byte> content);
}

/// <summary>Saved memory cannot be given back as it was.</summary>
/// <param name="message">What of it, and why, for people.</param>
/// <param name="cause">What the kernel said.</param>
public sealed class SavedPagesException(string message, Exception? cause = null) : IOException(message, cause);

/// <summary>A restore whose memory comes from saved files when it is touched, and by itself. Any thread.</summary>
public interface IMemoryRestore
{
    /// <summary>How far it is.</summary>
    RestoreProgress Progress { get; }

    /// <summary>Everything is there, and the files are closed.</summary>
    bool IsOver { get; }

    /// <summary>Called once when it is over, on a thread that may send. Set before the guest runs.</summary>
    Action<RestoreProgress>? Ended { get; set; }
}

/// <summary>How far the memory of a VM is that came from saved files when it was touched.</summary>
/// <param name="TotalBytes">What is in the files, zeros between it among them.</param>
/// <param name="LeftBytes">What is only in the files.</param>
/// <param name="AwaitedBytes">What somebody waited for: a vCPU or a device.</param>
/// <param name="Took">From the start of the VM to the last page, or until now.</param>
public readonly record struct RestoreProgress(ulong TotalBytes, ulong LeftBytes, ulong AwaitedBytes, TimeSpan Took);
