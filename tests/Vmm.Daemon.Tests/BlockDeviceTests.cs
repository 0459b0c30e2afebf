using System.Diagnostics;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Testing;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Block devices as disks: only of folders that an administrator named for them, and none that the host uses. On a real loop device.
/// </summary>
public sealed class BlockDeviceTests : IDisposable
{
    private static readonly StorageFolders s_devices = new([], ["/dev"]);

    private readonly LoopDevice _device = new(16 << 20);

    public void Dispose() => _device.Dispose();

    [Fact]
    public void A_device_of_a_named_folder_is_opened_and_for_one_writer_only()
    {
        using FileDescriptorHandle disk = s_devices.Open(_device.Path, writable: true);
        Assert.Equal(16u << 20, BlockFile.Inspect(disk).Size);
        Assert.Contains("the host has mounted or uses otherwise", Refused(s_devices, writable: true), StringComparison.Ordinal);
    }

    [Fact]
    public void A_device_in_a_folder_of_files_is_refused() =>
        Assert.Contains(
            "is a block device in no folder of \"blockDevices\"",
            Refused(new StorageFolders(["/dev"], []), writable: false),
            StringComparison.Ordinal);

    [Fact]
    public void A_device_that_the_host_has_mounted_is_refused_for_writers_and_readers()
    {
        Run("mke2fs", "-q", "-F", _device.Path);
        string folder = Directory.CreateTempSubdirectory("vmm-mnt-").FullName;
        Run("mount", _device.Path, folder);
        try
        {
            Assert.Contains("unmount it first", Refused(s_devices, writable: true), StringComparison.Ordinal);
            Assert.Contains("unmount it first", Refused(s_devices, writable: false), StringComparison.Ordinal);
        }
        finally
        {
            Run("umount", folder);
            Directory.Delete(folder);
        }

        s_devices.Open(_device.Path, writable: true).Dispose();
    }

    private string Refused(StorageFolders folders, bool writable) =>
        Assert.Throws<StorageException>(() => folders.Open(_device.Path, writable)).Message;

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
