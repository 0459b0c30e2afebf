using Vmm.Io;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// The file of the top image as the metadata's thread uses it. When a flush failed nothing more is changed and no flush succeeds: the host
/// may have dropped what the first was for, and would say that the next one is fine (fsync(2)).
/// </summary>
internal sealed class GuardedFile(IImageFile file, ImageState state, TableWrites? writes = null) : IImageFile
{
    public BlockGeometry Geometry => file.Geometry;

    public string Path => file.Path;

    public ulong Length => file.Length;

    public bool IsWritable => file.IsWritable;

    public uint BlockBytes => file.BlockBytes;

    public IBlockNode CreateNode(IoLoop loop, int depth) => file.CreateNode(loop, depth);

    public void Read(Span<byte> destination, ulong offset) => file.Read(destination, offset);

    public void Write(ReadOnlySpan<byte> bytes, ulong offset)
    {
        Check();
        writes?.Step();
        try
        {
            file.Write(bytes, offset);
        }
        finally
        {
            writes?.Step();
        }
    }

    public bool TryPunch(ulong offset, ulong length)
    {
        Check();
        return file.TryPunch(offset, length);
    }

    public void Grow(ulong length)
    {
        Check();
        file.Grow(length);
    }

    public void Flush()
    {
        lock (state)
        {
            while (state.IsFlushInFlight)
            {
                Monitor.Wait(state); // a node's: it ends without this thread
            }

            if (state.LostFlush is { } lost)
            {
                throw lost;
            }

            state.FlushBegins();
        }

        BlockException? failure = null;
        try
        {
            file.Flush();
        }
        catch (BlockException error)
        {
            failure = error;
        }

        lock (state)
        {
            state.FlushEnded(failure);
        }

        if (failure is not null)
        {
            throw failure;
        }
    }

    /// <summary>The file stays its owner's.</summary>
    public void Dispose()
    {
    }

    private void Check()
    {
        lock (state)
        {
            if (state.LostFlush is { } lost)
            {
                throw lost;
            }
        }
    }
}
