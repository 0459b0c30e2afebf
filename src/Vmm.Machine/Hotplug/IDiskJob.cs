using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>
/// What goes on with a disk of a running machine until a last step is taken or it is given up. One thread at a time, but for
/// <see cref="Report"/> and <see cref="IsGone"/>.
/// </summary>
public interface IDiskJob
{
    /// <summary>Name of the disk.</summary>
    string Device { get; }

    /// <summary>Bytes of the disk.</summary>
    ulong TotalBytes { get; }

    /// <summary>How far it is.</summary>
    MirrorReport Report { get; }

    /// <summary>The disk is gone from the machine, and the job with it.</summary>
    bool IsGone { get; }

    /// <summary>Somebody writes down how it ends.</summary>
    /// <exception cref="BlockException">Nothing comes of it.</exception>
    /// <exception cref="InvalidOperationException">It is not so far.</exception>
    void Seal();

    /// <summary>The last step.</summary>
    /// <exception cref="BlockException">The machine goes on with the disk as it was.</exception>
    /// <exception cref="TimeoutException">Requests in flight do not end: it goes on as before.</exception>
    /// <exception cref="InvalidOperationException">It is not so far.</exception>
    void Finish();

    /// <summary>Gives it up: the machine goes on with the disk that it has.</summary>
    /// <exception cref="TimeoutException">Requests in flight do not end: it can be cancelled again.</exception>
    void Cancel();
}
