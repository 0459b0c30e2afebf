using System.Diagnostics;
using Vmm.Interop;
using Vmm.Storage.Nbd;
using Vmm.Storage.Rbd;
using Vmm.Storage.Tests.NbdServing;

namespace Vmm.Storage.Tests.Rbd;

/// <summary>
/// Disks of a real Ceph cluster through published vmm-rbd processes: what is refused and how it is said, and that no request is lost when
/// the process or the cluster's OSD is killed. The conformance suite runs over "rbd of ceph" too.
/// </summary>
public sealed class RbdTests
{
    private const int Size = 64 << 20;

    private static string Folder => Path.GetDirectoryName(Environment.GetEnvironmentVariable("VMM_TEST_CEPH_CONF"))!;

    [CephFact]
    public void What_is_not_there_is_named()
    {
        using CephImage image = new(Size);
        RbdOptions disk = image.Options;
        foreach ((RbdOptions wrong, string said) in new[]
        {
            (disk with { Image = "nothing" }, "there is no image nothing in vms"),
            (disk with { Pool = "nothing" }, "the cluster has no pool nothing"),
            (disk with { User = "stranger" }, "client.stranger"),
            (disk with { User = "nobody", Keyring = Path.Combine(Folder, "client.nobody.keyring") }, "client.nobody may not do that"),
            (disk with { Conf = Path.Combine(Folder, "nothing.conf") }, "nothing.conf"),
            (disk with { Keyring = Path.Combine(Folder, "ceph.conf") }, "client.vmm"),
        })
        {
            IOException refused = Assert.ThrowsAny<IOException>(() => image.Helper(wrong).Open());
            Assert.Contains(said, refused.Message, StringComparison.Ordinal);
        }
    }

    [CephFact]
    public void An_image_that_two_could_write_is_refused_and_one_that_somebody_writes_too()
    {
        using CephImage plain = new(Size);
        CephImage.Rbd("feature", "disable", $"{CephImage.Pool}/{plain.Name}", "fast-diff", "object-map", "exclusive-lock");
        IOException unlocked = Assert.Throws<IOException>(() => plain.Helper().Open());
        Assert.Contains("rbd feature enable vms/", unlocked.Message, StringComparison.Ordinal);

        using CephImage image = new(Size);
        using NbdBackend first = image.Open();
        using CephImage again = new(0, image.Name, make: false);
        IOException refused = Assert.Throws<IOException>(() => again.Helper().Open());
        Assert.Contains("in use by another client", refused.Message, StringComparison.Ordinal);
        using NbdBackend reader = again.Open(readOnly: true); // as Ceph has it: readers may be there
        Assert.True(reader.Geometry.ReadOnly);
        using DiskDriver driver = new(first);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[4096]));
    }

    [CephFact]
    public void What_is_written_is_what_others_read()
    {
        using CephImage image = new(Size);
        byte[] data = new byte[5 << 20];
        new Random(1).NextBytes(data);
        using (NbdBackend disk = image.Open())
        {
            Assert.Equal((ulong)Size, disk.Geometry.CapacityBytes);
            using DiskDriver driver = new(disk);
            Assert.Equal(DiskStatus.Ok, driver.Write(3 << 20, data));
            Assert.Equal(DiskStatus.Ok, driver.WriteZeroes(4 << 20, 1536, mayUnmap: false));
            data.AsSpan(1 << 20, 1536).Clear();
        }

        string file = Path.Combine(Path.GetTempPath(), image.Name);
        try
        {
            CephImage.Rbd("export", $"{CephImage.Pool}/{image.Name}", file);
            Assert.Equal(data, File.ReadAllBytes(file).AsSpan(3 << 20, data.Length).ToArray());
        }
        finally
        {
            File.Delete(file);
        }
    }

    [CephFact]
    public void Its_process_is_killed_again_and_again_and_no_request_is_lost()
    {
        using CephImage image = new(Size);
        WriteWhile(image, () => KillHelpers(image), times: 3);
    }

    [CephFact]
    public void The_OSD_is_killed_amid_writes_and_no_request_is_lost()
    {
        using CephImage image = new(Size);
        string pidFile = Path.Combine(Folder, "osd.pid");
        WriteWhile(image, () =>
        {
            string before = File.ReadAllText(pidFile);
            NbdServingTests.Run("kill", "-KILL", before.Trim());
            Thread.Sleep(TimeSpan.FromSeconds(3)); // without one; tests/ceph starts it again
            for (int i = 0; i < 120 && string.Equals(File.ReadAllText(pidFile), before, StringComparison.Ordinal); i++)
            {
                Thread.Sleep(500);
            }
        }, times: 2);
    }

    [CephFact]
    public async Task It_runs_as_nobody_and_ends_with_its_client()
    {
        using CephImage image = new(Size);
        int[] pids;
        using (NbdBackend disk = image.Open())
        {
            pids = Helpers(image);
            int pid = Assert.Single(pids);
            string[] status = await File.ReadAllLinesAsync($"/proc/{pid}/status");
            Assert.Contains("Uid:\t65534\t65534\t65534\t65534", status);
            Assert.Contains("CapEff:\t0000000000000000", status);
            Assert.Contains("NoNewPrivs:\t1", status);
            Assert.Contains("Seccomp:\t2", status);
        }

        for (int i = 0; i < 600 && Helpers(image).Length > 0; i++)
        {
            await Task.Delay(100);
        }

        Assert.Empty(Helpers(image));
    }

    // Each block is written with a number that grows; whatever happens meanwhile, each write is answered well, and is there afterwards.
    private static void WriteWhile(CephImage image, Action accident, int times)
    {
        NbdOptions options = new()
        {
            Name = image.Options.Name,
            KeepsUnflushed = true,
            Reconnect = TimeSpan.FromMinutes(5),
            Timeout = TimeSpan.FromSeconds(10),
        };
        const int blocks = 64;
        byte[] block = new byte[4096];
        int[] last = new int[blocks];
        using NbdBackend disk = image.Open(options: options);
        using DiskDriver driver = new(disk);
        for (int round = 0, number = 1; round < times; round++)
        {
            Task accidents = Task.Run(accident);
            while (!accidents.IsCompleted || number % 200 != 0)
            {
                int at = number % blocks;
                last[at] = number;
                BitConverter.TryWriteBytes(block, number++);
                Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at << 20, block));
                Assert.True(number % 50 != 0 || driver.Flush() == DiskStatus.Ok);
            }

            accidents.GetAwaiter().GetResult();
        }

        for (int at = 0; at < blocks; at++)
        {
            Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at << 20, block));
            Assert.Equal(last[at], BitConverter.ToInt32(block));
        }
    }

    private static void KillHelpers(CephImage image)
    {
        Thread.Sleep(500);
        foreach (int pid in Helpers(image))
        {
            Process.GetProcessById(pid).Kill();
        }

        Thread.Sleep(2000);
    }

    private static int[] Helpers(CephImage image) =>
    [
        .. Directory.EnumerateDirectories("/proc").Select(Path.GetFileName).Where(name => int.TryParse(name, out _)).Select(int.Parse!)
            .Where(pid => IsHelper(pid, image)),
    ];

    private static bool IsHelper(int pid, CephImage image)
    {
        try
        {
            string[] words = File.ReadAllText($"/proc/{pid}/cmdline").Split('\0');
            return words[0].EndsWith(RbdHelper.ProgramName, StringComparison.Ordinal) && words.Contains(image.Name, StringComparer.Ordinal);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return false; // gone
        }
    }
}
