using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>A front end with a loop of its own: runs one request at a time and waits for it, or several at once.</summary>
internal sealed class DiskDriver : IBlockOwner, IDisposable
{
    private readonly BlockRequest[] _requests;
    private readonly DiskStatus[] _statuses;
    private readonly Func<bool> _isFirstOver; // made once: tests count what a request allocates

    public DiskDriver(IDiskBackend disk, int depth = 8) : this(loop => disk.CreateNode(loop, depth), depth) { }

    public DiskDriver(Func<IoLoop, IBlockNode> stack, int depth = 8)
    {
        _isFirstOver = () => _requests![0].State == BlockState.Done;
        Node = stack(Loop);
        _statuses = new DiskStatus[depth];
        _requests = new BlockRequest[depth];
        for (int i = 0; i < depth; i++)
        {
            _requests[i] = new BlockRequest(this, i);
            Loop.Add(_requests[i]);
        }
    }

    public IoLoop Loop { get; } = new();

    public IBlockNode Node { get; }

    /// <summary>Ends that were heard of.</summary>
    public int Ends { get; private set; }

    public BlockRequest this[int index] => _requests[index];

    public void Completed(BlockRequest request, DiskStatus status)
    {
        Ends++;
        _statuses[request.Token] = status;
    }

    public DiskStatus Status(int index) => _statuses[index];

    public DiskStatus Read(ulong offset, Span<byte> data, int shift = 0, params int[] cuts) =>
        Transfer(BlockKind.Read, offset, data, shift, cuts);

    public DiskStatus Write(ulong offset, ReadOnlySpan<byte> data, int shift = 0, params int[] cuts) =>
        Transfer(BlockKind.Write, offset, data.ToArray(), shift, cuts);

    public DiskStatus WriteThrough(ulong offset, ReadOnlySpan<byte> data) =>
        Transfer(BlockKind.Write, offset, data.ToArray(), 0, [], BlockFlags.Fua);

    public DiskStatus Flush() => Run(BlockKind.Flush);

    public DiskStatus Discard(ulong offset, ulong length) => Run(BlockKind.Discard, offset, (uint)length);

    public DiskStatus WriteZeroes(ulong offset, ulong length, bool mayUnmap) =>
        Run(BlockKind.WriteZeroes, offset, (uint)length, mayUnmap ? BlockFlags.MayUnmap : BlockFlags.None);

    public DiskStatus Run(BlockKind kind, ulong offset = 0, uint length = 0, BlockFlags flags = BlockFlags.None)
    {
        _requests[0].Prepare(kind, offset, length, flags);
        Node.Submit(_requests[0]);
        return Finish();
    }

    /// <summary>Waits until nothing is in flight.</summary>
    public void WaitForAll() => Node.WaitForAll(Loop);

    public void Dispose()
    {
        Node.Dispose();
        Loop.Dispose();
    }

    // shift: how far from page alignment the memory starts; cuts: where the buffer is split into vectors.
    private DiskStatus Transfer(BlockKind kind, ulong offset, Span<byte> data, int shift, int[] cuts, BlockFlags flags = BlockFlags.None)
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

        IoVector[] before = vectors.Span.ToArray();
        _requests[0].Prepare(kind, offset, (uint)data.Length, flags);
        _requests[0].SetData(vectors.Span);
        Node.Submit(_requests[0]);
        DiskStatus status = Finish();
        Assert.Equal(before, vectors.Span.ToArray()); // nobody edits the owner's vectors
        buffer.CopyTo(data);
        return status;
    }

    private DiskStatus Finish()
    {
        Assert.NotEqual(BlockState.Done, _requests[0].State); // never ends inside Submit
        int ends = Ends;
        Loop.DeliverUntil(_isFirstOver);

        Assert.Equal(ends + 1, Ends);
        Assert.Equal(BlockState.Done, _requests[0].State);
        return _statuses[0];
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
