using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>A disk and the nodes before it, by name: "router over direct on tmpfs".</summary>
internal sealed class Stack : IDisposable
{
    private readonly TemporaryFile? _file;
    private readonly int _routers;
    private readonly List<IBlockNode> _below = [];

    public Stack(string name, int size, bool readOnly = false)
    {
        const string router = "router over ";
        while (name.StartsWith(router, StringComparison.Ordinal))
        {
            _routers++;
            name = name[router.Length..];
        }

        if (name == "memory")
        {
            Backend = new MemoryDiskBackend(size, readOnly);
            return;
        }

        _file = new TemporaryFile(size, inMemory: name.EndsWith("tmpfs", StringComparison.Ordinal));
        DiskCacheMode cache = name.StartsWith("direct", StringComparison.Ordinal) ? DiskCacheMode.Direct : DiskCacheMode.Buffered;
        Backend = RawFileBackend.Open(_file.Path, new() { Cache = cache, ReadOnly = readOnly });
    }

    /// <summary>Every node and stack that there is.</summary>
    public static TheoryData<string> All =>
    [
        "memory", "direct", "buffered", "direct on tmpfs", "buffered on tmpfs", "router over memory", "router over direct",
        "router over buffered",
        "router over router over direct",
    ];

    /// <summary>The ones that end in a file.</summary>
    public static TheoryData<string> OnFiles => ["direct", "buffered", "direct on tmpfs", "router over direct", "router over buffered"];

    public IDiskBackend Backend { get; }

    public string Path => _file!.Path;

    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        IBlockNode node = Backend.CreateNode(loop, depth);
        for (int i = 0; i < _routers; i++)
        {
            _below.Add(node);
            node = new RequestRouter(loop, node);
        }

        return node;
    }

    public DiskDriver CreateDriver(int depth = 8) => new(loop => CreateNode(loop, depth), depth);

    /// <summary>The nodes below the top one, as their owner closes them.</summary>
    public void CloseBelow(IoLoop loop)
    {
        foreach (IBlockNode node in Enumerable.Reverse(_below))
        {
            node.FlushAndClose(loop);
        }
    }

    public void Dispose()
    {
        foreach (IBlockNode node in _below)
        {
            node.Dispose();
        }

        Backend.Dispose();
        _file?.Dispose();
    }
}
