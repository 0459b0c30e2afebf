using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>A disk waits for the host, or goes on.</summary>
/// <param name="disk">Name of the device, e.g. <c>disk0</c>.</param>
/// <param name="path">Its file.</param>
/// <param name="fault"><see cref="DiskStatus.NoSpace"/> or <see cref="DiskStatus.IoError"/>.</param>
/// <param name="waits">The machine is paused; false: it goes on by itself.</param>
public sealed class DiskStallEventArgs(string disk, string path, DiskStatus fault, bool waits) : EventArgs
{
    /// <summary>Name of the device.</summary>
    public string Disk { get; } = disk;

    /// <summary>Its file.</summary>
    public string Path { get; } = path;

    /// <summary>How its requests failed.</summary>
    public DiskStatus Fault { get; } = fault;

    /// <summary>The machine is paused.</summary>
    public bool Waits { get; } = waits;
}
