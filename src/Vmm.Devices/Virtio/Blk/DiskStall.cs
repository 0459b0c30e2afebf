using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>Which faults of the host are not reported to the driver: the request is kept, and the disk waits.</summary>
[Flags]
public enum DiskWaits
{
    /// <summary>None: the driver gets an error.</summary>
    None = 0,

    /// <summary>The host's file system is full.</summary>
    NoSpace = 1,

    /// <summary>Any other error of the host.</summary>
    IoError = 2,
}

/// <summary>
/// A disk whose failed requests are kept, until its owner lets it go on. Any thread; what it costs is paid by requests that fail.
/// </summary>
/// <param name="waits">For what it waits.</param>
/// <param name="begun">Hears when it begins to wait, on the I/O thread that met it: it must be quick.</param>
internal sealed class DiskStall(DiskWaits waits, Action<DiskStatus>? begun) : IFaultPolicy
{
    private int _reason = (int)DiskStatus.Ok;

    /// <summary>What it waits for; <see cref="DiskStatus.Ok"/>: it does not.</summary>
    internal DiskStatus Reason => (DiskStatus)Volatile.Read(ref _reason);

    public bool Keeps(BlockRequest request, DiskStatus status)
    {
        if ((waits & (status == DiskStatus.NoSpace ? DiskWaits.NoSpace : DiskWaits.IoError)) == 0)
        {
            return false;
        }

        if (Interlocked.CompareExchange(ref _reason, (int)status, (int)DiskStatus.Ok) == (int)DiskStatus.Ok)
        {
            begun?.Invoke(status);
        }

        return true;
    }

    /// <summary>It goes on: the next fault is a new one.</summary>
    internal void Clear() => Volatile.Write(ref _reason, (int)DiskStatus.Ok);
}
