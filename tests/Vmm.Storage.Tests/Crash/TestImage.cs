using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests.Crash;

/// <summary>A chain of images made by QEMU's tools, in memory and as files, and what the disk holds.</summary>
internal sealed class TestImage
{
    private readonly ImageSpec _spec;
    private readonly Random _random;
    private readonly string _folder;
    private readonly List<string> _files = [];
    private int _tops;

    public TestImage(ImageSpec spec, string folder)
    {
        _spec = spec;
        _folder = folder;
        _random = new Random(spec.Name.Length + spec.ClusterSize + spec.Depth);
        Content = new SparseBytes { Length = spec.DiskSize };
        Directory.CreateDirectory(folder);
        for (int layer = 0; layer < spec.Depth; layer++)
        {
            Make(layer);
        }

        Layers = [.. _files.AsEnumerable().Reverse().Select(SparseBytes.Load)];
    }

    private TestImage(ulong size)
    {
        _spec = new ImageSpec("raw", size);
        (_random, _folder) = (new Random(1), "");
        Content = new SparseBytes { Length = size };
        Layers = [Content];
    }

    /// <summary>A raw disk of zeros, which no tool looks at.</summary>
    public static TestImage Raw(ulong size) => new(size);

    public ImageSpec Spec => _spec;

    /// <summary>True when the top is a qcow2 image.</summary>
    public bool IsImage => _files.Count > 0;

    /// <summary>The files' bytes, the top first.</summary>
    public IReadOnlyList<SparseBytes> Layers { get; }

    /// <summary>What a reader of the disk sees.</summary>
    public SparseBytes Content { get; }

    /// <summary>True for the images that are qcow2, the top first.</summary>
    public bool IsQcow2(int layer) => !_spec.RawBase || layer < _spec.Depth - 1;

    /// <summary>Name of an image's file, the top first, as those above it give it.</summary>
    public string NameOf(int layer) => Path.GetFileName(_files[^(layer + 1)]);

    /// <summary>Files of the whole chain over a top, to be opened by an engine; the bases cannot be written.</summary>
    public IReadOnlyList<IImageFile> Open(IImageFile top) =>
        [top, .. Layers.Skip(1).Select((bytes, i) => new CrashFile(bytes, readOnly: true) { Path = $"base {i + 1}" })];

    /// <summary>Saves another state of the top beside its bases, for QEMU's tools; the caller deletes it.</summary>
    public string SaveTop(SparseBytes top)
    {
        string path = Path.Combine(_folder, $"top-{Interlocked.Increment(ref _tops)}.qcow2");
        top.SaveTo(path);
        return path;
    }

    private void Make(int layer)
    {
        bool raw = layer == 0 && _spec.RawBase, top = layer == _spec.Depth - 1;
        ulong size = layer == 0 && _spec.ShortBase ? _spec.DiskSize / 2 / 512 * 512 : _spec.DiskSize;
        string path = Path.Combine(_folder, raw ? "base.raw" : $"layer-{layer}.qcow2");
        _files.Add(path);
        if (raw)
        {
            WriteSegments(layer, size, (_, _) => { });
            SparseBytes content = Content.Copy();
            content.Length = size;
            content.SaveTo(path);
            return;
        }

        string format = layer == 1 && _spec.RawBase ? "raw" : "qcow2";
        string[] backing = layer == 0 ? [] : ["-b", Path.GetFileName(_files[layer - 1]), "-F", format];
        QemuImg.Run(["create", "-q", "-f", "qcow2", "-o", $"cluster_size={_spec.ClusterSize}{_spec.Options}", .. backing, path, $"{size}"]);
        if (top && _spec.FreshTop)
        {
            return;
        }

        List<string> commands = [];
        HashSet<ulong> written = [];
        WriteSegments(layer, size, (at, data) =>
        {
            string pattern = Path.Combine(_folder, $"pattern-{commands.Count}");
            File.WriteAllBytes(pattern, data);
            ulong first = at / (ulong)_spec.ClusterSize, last = (at + (ulong)data.Length - 1) / (ulong)_spec.ClusterSize;
            bool whole = at % (ulong)_spec.ClusterSize == 0 && data.Length % _spec.ClusterSize == 0;
            bool isNew = true; // only new clusters can be written compressed
            for (ulong cluster = first; cluster <= last; cluster++)
            {
                isNew &= written.Add(cluster);
            }

            commands.Add(!data.AsSpan().ContainsAnyExcept((byte)0) ? $"write -z {(_random.Next(2) == 0 ? "-u " : "")}{at} {data.Length}"
                : $"write {(whole && isNew && _spec.Compressed ? "-c " : "")}-s {pattern} {at} {data.Length}");
        });
        QemuJudge.Io(path, commands);
    }

    // Some stretches of each place, a few of them zeros.
    private void WriteSegments(int layer, ulong size, Action<ulong, byte[]> write)
    {
        ulong unit = (ulong)_spec.ClusterSize;
        foreach ((ulong from, ulong to) in _spec.Places)
        {
            for (int i = 0; i < (_spec.Depth > 4 ? 2 : 4); i++)
            {
                bool whole = _random.Next(2) == 0;
                ulong grain = whole ? unit : 512;
                ulong at = (from + (ulong)_random.NextInt64((long)(to - from))) / grain * grain;
                ulong end = Math.Min(at + ((ulong)_random.Next(1, whole ? 5 : 300) * grain), Math.Min(to, size) / grain * grain);
                if (at < end)
                {
                    byte[] data = new byte[Math.Min(end - at, 8 << 20)];
                    if (_random.Next(5) > 0)
                    {
                        DiskModel.Fill(data, at / 512, (uint)layer + 1);
                    }

                    Content.Write(data, at);
                    write(at, data);
                }
            }
        }
    }
}

/// <summary>The images of a test run; each is made once.</summary>
public sealed class ImageStore : IDisposable
{
    private readonly string _folder = Path.Combine(
        Directory.Exists("/dev/shm") ? "/dev/shm" : Path.GetTempPath(), $"vmm-images-{Environment.ProcessId}-{Guid.NewGuid():N}");

    private readonly Dictionary<string, TestImage> _images = [];

    internal TestImage this[string name]
    {
        get
        {
            lock (_images)
            {
                if (!_images.TryGetValue(name, out TestImage? image))
                {
                    ImageSpec spec = ImageSpec.All.Single(s => s.Name == name);
                    _images.Add(name, image = new TestImage(spec, Path.Combine(_folder, $"{_images.Count}")));
                }

                return image;
            }
        }
    }

    public void Dispose()
    {
        if (Directory.Exists(_folder))
        {
            Directory.Delete(_folder, recursive: true);
        }
    }
}
