namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// What a disk has done since the device was made. I/O threads add, any thread reads; each number is exact, together they are not one
/// moment.
/// </summary>
public sealed class BlkCounters
{
    private long _reads, _readBytes, _writes, _writtenBytes, _flushes, _errors;

    /// <summary>Finished reads.</summary>
    public long Reads => Volatile.Read(ref _reads);

    /// <summary>Bytes of finished reads.</summary>
    public long ReadBytes => Volatile.Read(ref _readBytes);

    /// <summary>Finished writes.</summary>
    public long Writes => Volatile.Read(ref _writes);

    /// <summary>Bytes of finished writes.</summary>
    public long WrittenBytes => Volatile.Read(ref _writtenBytes);

    /// <summary>Finished flushes.</summary>
    public long Flushes => Volatile.Read(ref _flushes);

    /// <summary>Requests answered with an error, malformed ones included.</summary>
    public long Errors => Volatile.Read(ref _errors);

    internal void Count(in BlkRequest request, BlkStatus status)
    {
        if (status != BlkStatus.Ok)
        {
            Interlocked.Increment(ref _errors);
            return;
        }

        switch (request.Type)
        {
            case BlkType.In:
                Interlocked.Increment(ref _reads);
                Interlocked.Add(ref _readBytes, (long)request.WritableBytes);
                break;
            case BlkType.Out:
                Interlocked.Increment(ref _writes);
                Interlocked.Add(ref _writtenBytes, (long)request.ReadableBytes);
                break;
            case BlkType.Flush:
                Interlocked.Increment(ref _flushes);
                break;
            default:
                break;
        }
    }
}
