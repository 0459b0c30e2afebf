using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>The host fails requests of a disk.</summary>
/// <param name="disk">Name of the device, e.g. <c>disk0</c>.</param>
/// <param name="status"><see cref="DiskStatus.NoSpace"/> or <see cref="DiskStatus.IoError"/>.</param>
public sealed class DiskFaultEventArgs(string disk, DiskStatus status) : EventArgs
{
    /// <summary>Name of the device.</summary>
    public string Disk { get; } = disk;

    /// <summary>How its requests fail.</summary>
    public DiskStatus Status { get; } = status;
}
