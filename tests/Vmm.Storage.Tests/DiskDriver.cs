using Vmm.Interop;

namespace Vmm.Storage.Tests;

/// <summary>Runs one request at a time on a disk queue and waits for it.</summary>
internal sealed class DiskDriver(IDiskBackend disk) : IDisposable
{
    private readonly IDiskQueue _queue = disk.CreateQueue(8);
    private ulong _tag = 100;

    public IDiskQueue Queue => _queue;

    public DiskStatus Read(ulong offset, Span<byte> data, int shift = 0, params int[] cuts) => Transfer(offset, data, read: true, shift, cuts);

    public DiskStatus Write(ulong offset, ReadOnlySpan<byte> data, int shift = 0, params int[] cuts) => Transfer(offset, data.ToArray(), read: false, shift, cuts);

    public DiskStatus Flush()
    {
        _queue.Flush(++_tag);
        return Finish();
    }

    public DiskStatus Discard(ulong offset, ulong length)
    {
        _queue.Discard(++_tag, offset, length);
        return Finish();
    }

    public DiskStatus WriteZeroes(ulong offset, ulong length, bool mayUnmap)
    {
        _queue.WriteZeroes(++_tag, offset, length, mayUnmap);
        return Finish();
    }

    public void Dispose() => _queue.Dispose();

    // shift: how far from page alignment the memory starts; cuts: where the buffer is split into vectors.
    private DiskStatus Transfer(ulong offset, Span<byte> data, bool read, int shift, int[] cuts)
    {
        using NativeArray<byte> memory = new(data.Length + shift + 1, 4096);
        using NativeArray<IoVector> vectors = new(cuts.Length + 1);
        Span<byte> buffer = memory.Span.Slice(shift, data.Length);
        data.CopyTo(buffer);
        int from = 0;
        for (int i = 0; i <= cuts.Length; i++)
        {
            int to = i < cuts.Length ? cuts[i] : data.Length;
            vectors.Span[i] = new IoVector(memory.AddressOf(shift + from), (nuint)(to - from));
            from = to;
        }

        if (read)
        {
            _queue.Read(++_tag, offset, vectors.AddressOf(0), vectors.Length, (uint)data.Length);
        }
        else
        {
            _queue.Write(++_tag, offset, vectors.AddressOf(0), vectors.Length, (uint)data.Length);
        }

        DiskStatus status = Finish();
        buffer.CopyTo(data);
        return status;
    }

    private DiskStatus Finish()
    {
        Span<DiskCompletion> done = stackalloc DiskCompletion[8];
        _queue.Submit();
        int count;
        while ((count = _queue.Reap(done)) == 0)
        {
            _queue.Wait();
        }

        Assert.Equal(1, count);
        Assert.Equal(_tag, done[0].Tag);
        return done[0].Status;
    }
}

/// <summary>A file that is deleted afterwards.</summary>
internal sealed class TemporaryFile : IDisposable
{
    /// <summary>A file of so many bytes; on a file system in memory if asked.</summary>
    public TemporaryFile(long size, bool inMemory = false)
    {
        Path = System.IO.Path.Combine(inMemory ? "/dev/shm" : AppContext.BaseDirectory, "disk-" + Guid.NewGuid().ToString("N") + ".img");
        using FileStream file = File.Create(Path);
        file.SetLength(size);
    }

    public string Path { get; }

    public void Dispose() => File.Delete(Path);
}
