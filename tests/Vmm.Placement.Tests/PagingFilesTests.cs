using Vmm.Interop;

namespace Vmm.Placement.Tests;

/// <summary>What a host gives a machine with a resident limit.</summary>
public sealed class PagingFilesTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-swap-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_swap_file_has_no_name_and_grows_as_it_is_written()
    {
        List<string> notes = [];
        using FileDescriptorHandle swap = PagingFiles.OpenSwap(_folder, "here", notes.Add);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder));
        BlockFileInfo info = BlockFile.Inspect(swap);
        Assert.Equal((0ul, BlockFileKind.RegularFile), (info.Size, info.Kind));
        Assert.All(notes, note => Assert.StartsWith("the swap file in here goes through", note, StringComparison.Ordinal));
    }

    [Fact]
    public void A_folder_that_takes_no_swap_file_is_named_with_the_field()
    {
        HostMismatchException refused = Assert.Throws<HostMismatchException>(
            () => PagingFiles.OpenSwap(Path.Combine(_folder, "none"), "/the/folder", null));
        Assert.StartsWith("memory.swap: swap file in /the/folder: ", refused.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(_folder, refused.Message, StringComparison.Ordinal);
        string file = Path.Combine(_folder, "file");
        File.WriteAllText(file, "");
        Assert.Throws<HostMismatchException>(() => PagingFiles.OpenSwap(file, file, null));
    }

    [Fact]
    public void A_host_without_the_device_is_told_what_it_lacks()
    {
        string path = Path.Combine(_folder, "userfaultfd");
        HostMismatchException refused = Assert.Throws<HostMismatchException>(() => PagingFiles.OpenUserfault(path));
        Assert.Contains(path, refused.Message, StringComparison.Ordinal);
        Assert.Contains("CONFIG_USERFAULTFD", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_device_of_the_host_is_opened_or_the_error_names_it()
    {
        try
        {
            using FileDescriptorHandle device = PagingFiles.OpenUserfault();
            Assert.False(device.IsInvalid);
        }
        catch (HostMismatchException refused)
        {
            Assert.Contains(UserfaultDevice.Path, refused.Message, StringComparison.Ordinal);
        }
    }
}
