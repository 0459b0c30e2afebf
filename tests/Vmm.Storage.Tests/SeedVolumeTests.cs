using System.Diagnostics;
using System.Text;
using Vmm.Storage.Seeds;
using Vmm.Testing;

namespace Vmm.Storage.Tests;

/// <summary>Seed disks, judged by other programs: isoinfo of cdrkit, blkid, and the kernel.</summary>
public sealed class SeedVolumeTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-seed-").FullName;

    private string Volume => Path.Combine(_folder, "seed");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Isoinfo_and_blkid_find_the_label_the_names_and_every_byte()
    {
        Random random = new(3);
        byte[] every = [.. Enumerable.Range(0, 256).Select(b => (byte)b)];
        foreach (int length in new[] { 0, 1, 2047, 2048, 2049, random.Next(100_000), SeedFile.MostBytes })
        {
            byte[] noise = new byte[length];
            random.NextBytes(noise);
            SeedFile[] files =
            [
                new(SeedFile.UserData, noise), new(SeedFile.MetaData, every), new(SeedFile.VendorData, Array.Empty<byte>()),
                new(SeedFile.NetworkConfig, Encoding.ASCII.GetBytes("version: 2\n")),
            ];
            byte[] volume = SeedVolume.Make(files);
            Assert.Equal(volume, SeedVolume.Make([.. files.Reverse()]));
            Assert.Equal(0, volume.Length % SeedVolume.SectorBytes);
            File.WriteAllBytes(Volume, volume);
            Assert.Equal("cidata", Text("blkid", "-o", "value", "-s", "LABEL", Volume).Trim());
            Assert.Equal("iso9660", Text("blkid", "-o", "value", "-s", "TYPE", Volume).Trim());
            Assert.Equal(
                ["/meta-data", "/network-config", "/user-data", "/vendor-data"],
                Text("isoinfo", "-R", "-f", "-i", Volume).Split('\n', StringSplitOptions.RemoveEmptyEntries).Order(StringComparer.Ordinal));
            foreach (SeedFile file in files.Where(f => f.Content.Length > 0))
            {
                Assert.Equal(file.Content.ToArray(), Bytes("isoinfo", "-R", "-x", "/" + file.Name, "-i", Volume));
            }
        }
    }

    [LoopFact(FileSystem = "iso9660")]
    public void The_kernel_mounts_it_with_names_rights_and_bytes()
    {
        byte[] every = [.. Enumerable.Range(0, 70_000).Select(b => (byte)b)];
        File.WriteAllBytes(Volume, SeedVolume.Make([new(SeedFile.UserData, every), new(SeedFile.MetaData, Array.Empty<byte>())]));
        string at = Path.Combine(_folder, "at");
        Directory.CreateDirectory(at);
        using Process mount = Process.Start(new ProcessStartInfo("mount", ["-o", "loop,ro", "-t", "iso9660", Volume, at])
        { UseShellExecute = false, RedirectStandardError = true })!;
        string said = mount.StandardError.ReadToEnd();
        mount.WaitForExit();
        Assert.True(mount.ExitCode == 0, said);
        try
        {
            Assert.Equal(["meta-data", "user-data"], Directory.GetFiles(at).Select(Path.GetFileName).Order(StringComparer.Ordinal));
            Assert.Equal(every, File.ReadAllBytes(Path.Combine(at, "user-data")));
            Assert.Empty(File.ReadAllBytes(Path.Combine(at, "meta-data")));
            Assert.Equal(UnixFileMode.UserRead, File.GetUnixFileMode(Path.Combine(at, "user-data")));
        }
        finally
        {
            Bytes("umount", at);
        }
    }

    [Fact]
    public void Other_names_doubles_and_what_is_too_large_are_refused()
    {
        SeedFile sound = new(SeedFile.UserData, Array.Empty<byte>());
        Assert.Throws<ArgumentException>(() => SeedVolume.Make([sound, sound]));
        Assert.Throws<ArgumentException>(() => SeedVolume.Make([new("other", Array.Empty<byte>())]));
        Assert.Throws<ArgumentException>(() => SeedVolume.Make([new(SeedFile.UserData, new byte[SeedFile.MostBytes + 1])]));
    }

    private static string Text(string program, params string[] arguments) => Encoding.UTF8.GetString(Bytes(program, arguments));

    private static byte[] Bytes(string program, params string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments) { UseShellExecute = false, RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        using MemoryStream output = new();
        process.StandardOutput.BaseStream.CopyTo(output);
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: exit code {process.ExitCode}");
        return output.ToArray();
    }
}
