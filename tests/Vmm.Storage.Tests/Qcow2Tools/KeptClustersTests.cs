using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>
/// A base is committed to while its chain is used. Its clusters are compressed, and those above hide a half of each: what is written goes
/// elsewhere in the base, and the chain goes on to read the other half where it knows it.
/// </summary>
public sealed class KeptClustersTests : IDisposable
{
    private const int BaseCluster = 1 << 10, Half = 512; // more tables than a cache holds changed ones: they are written amid the commit
    private const int Table = 128 << 10, Tables = 400;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-kept-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void What_a_commit_frees_in_a_base_stays_as_long_as_a_chain_may_read_it()
    {
        Make();
        using Qcow2Disk disk = Qcow2Disk.Open(
            [Layer("top"), Layer("middle"), Layer("base")], new Qcow2DiskOptions { CacheBytes = 16 << 20 });
        using DiskDriver guest = new(disk);
        Assert.Null(Wrong(guest)); // and it has all tables in memory
        int looks = 0;
        ImageCommit.Run(disk, from: 1, place: 2, new ToolProgress(_ =>
        {
            looks++;
            Assert.Null(Wrong(guest));
        }));
        Assert.True(looks > 20);
    }

    private static byte Below(int table) => (byte)(1 + (table % 100));

    private static byte Above(int table) => (byte)(101 + (table % 100));

    private static string? Wrong(DiskDriver guest)
    {
        byte[] data = new byte[BaseCluster];
        for (int i = 0; i < Tables; i++)
        {
            DiskStatus status = guest.Read((ulong)i * Table, data);
            if (status != DiskStatus.Ok || data.AsSpan(0, Half).ContainsAnyExcept(Above(i))
                || data.AsSpan(Half).ContainsAnyExcept(Below(i)))
            {
                return $"at {i} of {Tables}: {status}, {data[0]} {data[Half]}, not {Above(i)} {Below(i)}";
            }
        }

        return null;
    }

    private void Make()
    {
        string raw = Path.Combine(_folder, "raw");
        using (FileStream file = File.Create(raw))
        {
            file.SetLength((long)Tables * Table);
            byte[] data = new byte[BaseCluster];
            for (int i = 0; i < Tables; i++)
            {
                data.AsSpan().Fill(Below(i));
                file.Position = (long)i * Table;
                file.Write(data);
            }
        }

        QemuImg.Run("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", $"cluster_size={BaseCluster}", raw, At("base"));
        QemuImg.Run("create", "-f", "qcow2", "-o", $"cluster_size={Half}", "-F", "qcow2", "-b", At("base"), At("middle"));
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", At("middle"), At("top"));
        using Qcow2Disk middle = Qcow2Disk.Open([Layer("middle"), Layer("base")]);
        using DiskDriver driver = new(middle);
        for (int i = 0; i < Tables; i++)
        {
            Assert.Equal(DiskStatus.Ok, driver.Write((ulong)i * Table, Enumerable.Repeat(Above(i), Half).ToArray()));
        }

        driver.Node.FlushAndClose(driver.Loop);
    }

    private string At(string name) => Path.Combine(_folder, name);

    private ImageLayer Layer(string name) => new(
        new RawImageFile(RawFileBackend.Open(At(name), new() { IsImage = true, Cache = DiskCacheMode.Buffered })), ImageFormat.Qcow2);
}
