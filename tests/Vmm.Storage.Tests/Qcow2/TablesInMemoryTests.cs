using System.Buffers.Binary;
using Vmm.Io;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Tests.Qcow2;

/// <summary>A table whose new content is on its way to the file is not in the file yet: it is read from memory until it is.</summary>
public sealed class TablesInMemoryTests : IDisposable
{
    private const ulong Coverage = 2 << 20; // what a table of an image with clusters of 4 KiB maps
    private const int Tables = 32;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-tables-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_table_that_is_being_written_stays_in_memory()
    {
        string image = Path.Combine(_folder, "image.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, $"{Tables * Coverage}");
        byte[] data = Enumerable.Repeat((byte)7, 4096).ToArray(), seen = new byte[4096];
        Use(new RawImageFile(Open(image)), driver =>
        {
            for (int i = 0; i < Tables; i++)
            {
                Assert.Equal(DiskStatus.Ok, driver.Write((ulong)i * Coverage, data));
            }
        });

        using HoldingFile file = new(new RawImageFile(Open(image)), FirstTable(File.ReadAllBytes(image)));
        Use(file, driver =>
        {
            Assert.Equal(DiskStatus.Ok, driver.Write(4096, data));
            driver[1].Prepare(BlockKind.Flush);
            driver.Node.Submit(driver[1]);
            driver.Loop.Submit();
            try
            {
                driver.Loop.DeliverUntil(() => file.Holds);
                for (int i = 1; i < Tables; i++)
                {
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)i * Coverage, seen)); // memory has room for eight tables
                }

                Assert.Equal(DiskStatus.Ok, driver.Read(4096, seen));
                Assert.Equal(data, seen);
            }
            finally
            {
                file.LetGo();
            }

            driver.Loop.DeliverUntil(() => driver[1].State == BlockState.Done);
            Assert.Equal(DiskStatus.Ok, driver.Status(1));
        });
    }

    private static RawFileBackend Open(string path) => RawFileBackend.Open(path, new() { IsImage = true, Cache = DiskCacheMode.Buffered });

    private static void Use(IImageFile file, Action<DiskDriver> test)
    {
        using Qcow2Disk disk = Qcow2Disk.Open([new ImageLayer(file, ImageFormat.Qcow2)], new Qcow2DiskOptions { CacheBytes = 1 });
        using DiskDriver driver = new(disk);
        test(driver);
        driver.Node.FlushAndClose(driver.Loop);
    }

    private static ulong FirstTable(byte[] image)
    {
        ulong l1 = BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40));
        return BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan((int)l1)) & 0x00ff_ffff_ffff_fe00;
    }

    /// <summary>A file whose first write of the metadata to a place takes until it is let go.</summary>
    private sealed class HoldingFile(IImageFile inner, ulong place) : IImageFile
    {
        private readonly ManualResetEventSlim _go = new(), _held = new();
        private IoLoop? _loop;

        public string Path => inner.Path;

        public ulong Length => inner.Length;

        public bool IsWritable => inner.IsWritable;

        public BlockGeometry Geometry => inner.Geometry;

        /// <summary>The write came.</summary>
        public bool Holds => _held.IsSet;

        public void LetGo() => _go.Set();

        public IBlockNode CreateNode(IoLoop loop, int depth) => inner.CreateNode(_loop = loop, depth);

        public void Read(Span<byte> destination, ulong offset) => inner.Read(destination, offset);

        public void Write(ReadOnlySpan<byte> bytes, ulong offset)
        {
            if (offset == place)
            {
                _held.Set();
                _loop!.Post(static () => { }); // who waits for that looks again
                _go.Wait();
            }

            inner.Write(bytes, offset);
        }

        public void Flush() => inner.Flush();

        public bool TryPunch(ulong offset, ulong length) => inner.TryPunch(offset, length);

        public void Grow(ulong length) => inner.Grow(length);

        public void Dispose()
        {
            inner.Dispose();
            _go.Dispose();
            _held.Dispose();
        }
    }
}
