using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage;
using Vmm.Storage.Nbd;

namespace Vmm.Worker.Probe;

/// <summary>
/// An NBD disk in a process that makes no sockets any more: opened before the filters, and connected again behind them, over sockets that
/// somebody else connected.
/// </summary>
internal sealed class NbdWork : INbdConnector, IBlockOwner
{
    private readonly Queue<UnixStream> _sockets = new();
    private readonly IoLoop _loop = IoLoop.WithoutRing();
    private readonly NbdBackend _disk;
    private readonly BlockRequest _request;
    private readonly IBlockNode _node;
    private DiskStatus _status;

    internal NbdWork(string path)
    {
        for (int i = 0; i < 3; i++)
        {
            _sockets.Enqueue(UnixStream.Connect(path, out int errno) ?? throw new IOException($"connect {path}: errno {errno}"));
        }

        _disk = NbdBackend.Open(new NbdOptions { Name = "probe", KeepsUnflushed = true }, this);
        _node = _disk.CreateNode(_loop, 1);
        _request = new BlockRequest(this);
        _loop.Add(_request);
    }

    public Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel) =>
        Task.FromResult(new FileDescriptorHandle(_sockets.Dequeue().Detach()));

    public void Completed(BlockRequest request, DiskStatus status) => _status = status;

    /// <summary>Writes and reads, over one connection after the other.</summary>
    internal void Do()
    {
        using NativeArray<byte> memory = new(8192);
        using NativeArray<IoVector> vectors = new(2);
        for (int i = 0; i < 2; i++)
        {
            vectors.Span[i] = new IoVector(memory.AddressOf(i * 4096), 4096);
        }

        foreach (BlockKind kind in new[] { BlockKind.Write, BlockKind.Flush, BlockKind.Read, BlockKind.WriteZeroes, BlockKind.Discard })
        {
            Run(kind, vectors);
        }

        _node.FlushAndClose(_loop);
        _disk.Dispose();
        using NbdBackend again = NbdBackend.Open(new NbdOptions { Name = "probe" }, this); // as after a lost connection
    }

    private void Run(BlockKind kind, NativeArray<IoVector> vectors)
    {
        _request.Prepare(kind, 0, kind == BlockKind.Flush ? 0u : 8192u);
        _request.SetData(vectors.Span);
        _node.Submit(_request);
        _node.WaitForAll(_loop);
        if (_status != DiskStatus.Ok)
        {
            throw new InvalidOperationException($"{kind}: {_status}");
        }
    }
}
