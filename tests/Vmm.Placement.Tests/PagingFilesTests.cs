using Microsoft.Win32.SafeHandles;
using Vmm.Interop;

namespace Vmm.Placement.Tests;

/// <summary>What a host gives a machine with a resident limit.</summary>
public sealed class PagingFilesTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-swap-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_swap_file_has_no_name_and_keeps_what_is_written()
    {
        using FileDescriptorHandle swap = PagingFiles.OpenSwap(_folder, "here");
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder));
        Assert.Equal((0ul, BlockFileKind.RegularFile), (BlockFile.Inspect(swap).Size, BlockFile.Inspect(swap).Kind));
        using SafeFileHandle same = new(swap.DangerousGetHandle(), ownsHandle: false);
        using NativeArray<byte> page = new(8192);
        int start = (int)(-page.AddressOf(0) & 4095); // O_DIRECT asks for it
        page.Span.Slice(start, 4096).Fill(7);
        RandomAccess.Write(same, page.Span.Slice(start, 4096), 1 << 20);
        page.Span.Clear();
        Assert.Equal(4096, RandomAccess.Read(same, page.Span.Slice(start, 4096), 1 << 20));
        Assert.Equal([7, 7], new[] { page.Span[start], page.Span[start + 4095] });
        Assert.Equal((1ul << 20) + 4096, BlockFile.Inspect(swap).Size);
    }

    [Fact]
    public void A_folder_that_takes_no_swap_file_is_named_with_the_field()
    {
        HostMismatchException refused = Assert.Throws<HostMismatchException>(
            () => PagingFiles.OpenSwap(Path.Combine(_folder, "none"), "/the/folder"));
        Assert.StartsWith("memory.swap: no swap file can be made in /the/folder: ", refused.Message, StringComparison.Ordinal);
        string file = Path.Combine(_folder, "file");
        File.WriteAllText(file, "");
        Assert.Throws<HostMismatchException>(() => PagingFiles.OpenSwap(file, file));
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
