using Vmm.Io;
using Vmm.Storage.Nbd;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Crash;
using Vmm.Storage.Tests.Nbd;
using Vmm.Storage.Tests.NbdServing;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Storage.Tests.Rbd;

namespace Vmm.Storage.Tests;

/// <summary>
/// A disk and the nodes before it, by name: "router over mirror over direct on tmpfs". The last word is the leaf; a mirror is before a leaf
/// and copies from its first moment on, and so is a change log.
/// </summary>
internal sealed class Stack : IDisposable
{
    private readonly List<TemporaryFile> _files = [];
    private readonly string[] _before;
    private readonly List<IBlockNode> _below = [];
    private NbdServer? _server;
    private OwnServer? _own;
    private CephImage? _image;

    public Stack(string name, int size, bool readOnly = false)
    {
        string[] parts = name.Split(" over ");
        (_before, string leaf) = (parts[..^1], parts[^1]);
        Backend = Leaf(leaf, size, readOnly);
        if (_before is [.., "mirror"])
        {
            _before = _before[..^1];
            DiskMirror mirror = new(Backend, Leaf(leaf, size, readOnly: false));
            mirror.Start();
            Backend = mirror;
        }
        else if (_before is [.., "log"])
        {
            _before = _before[..^1];
            Backend = new LoggedDisk(Backend);
        }
    }

    /// <summary>Every node and stack that there is.</summary>
    public static string[] Names => [.. OfFiles, .. OfImages, .. OfServers, .. InMemory, "late over memory", "crash"];

    /// <summary>The same, for theories.</summary>
    public static TheoryData<string> All => [.. Names];

    /// <summary>The ones whose requests cost no memory: not those with a kit of the tests that keeps a journal.</summary>
    public static TheoryData<string> Frugal => [.. OfFiles, .. OfImages, .. OfServers, .. InMemory];

    /// <summary>The ones that end in a raw file.</summary>
    public static TheoryData<string> OnFiles => [.. OfFiles];

    /// <summary>The ones whose disk has a size of its own, that can be made larger.</summary>
    public static TheoryData<string> Enlarging => [.. OfImages.Where(name => name.Contains("qcow2", StringComparison.Ordinal))];

    /// <summary>The ones of them that can grow: a mirror keeps the size that it began with.</summary>
    public static TheoryData<string> Growing => [.. OfFiles.Where(name => !name.Contains("mirror", StringComparison.Ordinal))];

    public IDiskBackend Backend { get; }

    /// <summary>The file of a stack that can crash.</summary>
    public CrashFile? Crash { get; private set; }

    public string Path => _files[0].Path;

    private static string[] OfFiles { get; } =
    [
        "direct", "buffered", "direct on tmpfs", "buffered on tmpfs", "router over direct", "router over buffered",
        "router over router over direct", "late over buffered", "mirror over direct", "mirror over buffered",
        "mirror over direct on tmpfs", "router over mirror over buffered", "log over direct", "router over log over buffered",
    ];

    private static string[] InMemory { get; } = ["memory", "router over memory", "mirror over memory", "log over memory"];

    private static string[] OfImages { get; } =
    [
        "image on direct", "image on buffered", "qcow2 on direct", "qcow2 on buffered", "qcow2 4k on direct", "qcow2 extended on direct",
        "qcow2 chain on buffered", "router over late over qcow2 on direct", "log over qcow2 on direct",
        "router over log over qcow2 chain on buffered",
    ];

    // Those whose server is there; NbdServerTests are skipped, with the reason, where one is not.
    private static string[] OfServers { get; } =
    [
        .. NbdServer.WhyNot("qemu-nbd") is null ? (string[])["nbd of qemu", "router over nbd of qemu"] : [],
        .. NbdServer.WhyNot("nbdkit") is null ? (string[])["nbd of nbdkit"] : [],
        .. NbdServer.WhyNot("sh") is null ? (string[])["nbd of ours"] : [],
        .. CephImage.WhyNot is null ? (string[])["rbd of ceph"] : [],
    ];

    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        IBlockNode node = Backend.CreateNode(loop, depth);
        foreach (string before in _before.Reverse())
        {
            lock (_below)
            {
                _below.Add(node);
            }

            node = Before(before, loop, node);
        }

        return node;
    }

    public DiskDriver CreateDriver(int depth = 8) => new(loop => CreateNode(loop, depth), depth);

    /// <summary>The stack as a disk, whose nodes end with what is below them.</summary>
    public IDiskBackend AsDisk() => new Whole(this);

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
        _server?.Dispose();
        _own?.Dispose();
        _image?.Dispose();
        _files.ForEach(file => file.Dispose());
    }

    private static IBlockNode Before(string name, IoLoop loop, IBlockNode node) => name switch
    {
        "router" => new RequestRouter(loop, node),
        "limits" => new RequestRouter(loop, node) { Gate = new EveryFifth() },
        "late" => new FaultNode(loop, node) { Reorders = true },
        _ => throw new ArgumentOutOfRangeException(nameof(name), name, "no such node"),
    };

    private static RawFileBackend Raw(string path, string leaf, bool readOnly, bool isImage) => RawFileBackend.Open(path, new()
    {
        Cache = leaf.StartsWith("direct", StringComparison.Ordinal) ? DiskCacheMode.Direct : DiskCacheMode.Buffered,
        ReadOnly = readOnly,
        IsImage = isImage,
    });

    private static RawImageFile Image(string path, string cache, bool readOnly) => new(Raw(path, cache, readOnly, isImage: true));

    private IDiskBackend Leaf(string leaf, int size, bool readOnly)
    {
        string cache = leaf.Split(' ')[^1];
        return leaf.Split(' ')[0] switch
        {
            "memory" => new MemoryDiskBackend(size, readOnly),
            "image" => new ToyDisk(Image(NewFile(0), cache, readOnly), (ulong)size),
            "crash" => new ToyDisk(Crash = new CrashFile(readOnly: readOnly) { Delays = true }, (ulong)size),
            "qcow2" => Qcow2(leaf, cache, size, readOnly),
            "nbd" => Nbd(leaf, size, readOnly),
            "rbd" => (_image = new CephImage(size)).Open(readOnly),
            _ => Raw(NewFile(size, inMemory: cache == "tmpfs"), leaf, readOnly, isImage: false),
        };
    }

    private NbdBackend Nbd(string name, int size, bool readOnly)
    {
        if (name.EndsWith("ours", StringComparison.Ordinal))
        {
            _own = new OwnServer(new MemoryDiskBackend(size, readOnly));
            return _own.Open(new() { Name = name, ReadOnly = readOnly });
        }

        _server = name.EndsWith("qemu", StringComparison.Ordinal)
            ? NbdServer.Qemu(NewFile(size), readOnly)
            : NbdServer.Kit(["memory", $"{size}", .. readOnly ? (string[])["-r"] : []]);
        return _server.Open(new() { Name = name, ReadOnly = readOnly });
    }

    // Made by qemu-img; the chain is a short raw base, an image over it, and the top.
    private Qcow2Disk Qcow2(string name, string cache, int size, bool readOnly)
    {
        string options = name.Contains("4k", StringComparison.Ordinal) ? "cluster_size=4k"
            : name.Contains("extended", StringComparison.Ordinal) ? "extended_l2=on"
            : "cluster_size=64k";
        string top = NewFile(0);
        if (!name.Contains("chain", StringComparison.Ordinal))
        {
            QemuImg.Run("create", "-q", "-f", "qcow2", "-o", options, top, $"{size}");
            return Qcow2Disk.Open([new ImageLayer(Image(top, cache, readOnly), ImageFormat.Qcow2)]);
        }

        string bottom = NewFile(size / 1024 * 512), middle = NewFile(0);
        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", bottom, "-F", "raw", middle, $"{size}");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", options, "-b", middle, "-F", "qcow2", top, $"{size}");
        return Qcow2Disk.Open(
        [
            new ImageLayer(Image(top, cache, readOnly), ImageFormat.Qcow2),
            new ImageLayer(Image(middle, cache, readOnly: true), ImageFormat.Qcow2),
            new ImageLayer(Image(bottom, cache, readOnly: true), ImageFormat.Raw),
        ]);
    }

    private string NewFile(long size, bool inMemory = false)
    {
        _files.Add(new TemporaryFile(size, inMemory));
        return _files[^1].Path;
    }

    // A rate limit that lets four of five requests pass at once, and the fifth a millisecond later.
    private sealed class EveryFifth : IRequestGate
    {
        private int _count;

        public bool TryPass(BlockRequest request, out int wait)
        {
            wait = 1;
            return ++_count % 5 != 0;
        }
    }

    private sealed class Whole(Stack stack) : IDiskBackend
    {
        public BlockGeometry Geometry => stack.Backend.Geometry;

        public IBlockNode CreateNode(IoLoop loop, int depth)
        {
            List<IBlockNode> nodes = [stack.Backend.CreateNode(loop, depth)];
            foreach (string before in stack._before.Reverse())
            {
                nodes.Add(Before(before, loop, nodes[^1]));
            }

            return new Owner([.. Enumerable.Reverse(nodes)]);
        }

        public void Dispose() { }
    }

    // The top node of a stack, which ends the ones below it.
    private sealed class Owner(IBlockNode[] nodes) : IBlockNode
    {
        public BlockGeometry Geometry => nodes[0].Geometry;

        public int InFlight => nodes[0].InFlight;

        public bool WritesZeroesAsData(bool mayUnmap) => nodes[0].WritesZeroesAsData(mayUnmap);

        public void Submit(BlockRequest request) => nodes[0].Submit(request);

        public async ValueTask FlushAndCloseAsync()
        {
            foreach (IBlockNode node in nodes)
            {
                await node.FlushAndCloseAsync().ConfigureAwait(false);
            }
        }

        public void Dispose()
        {
            foreach (IBlockNode node in nodes)
            {
                node.Dispose();
            }
        }
    }
}
