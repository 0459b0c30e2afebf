using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// Makes the file of a <see cref="SwapStore"/>, in the process that may open files. It has no name: it goes with its last descriptor, also
/// when the processes that have one are killed.
/// </summary>
public static class SwapFile
{
    /// <summary>Makes one.</summary>
    /// <param name="folder">On whose file system it lies.</param>
    /// <param name="limit">Most bytes that it will have, rounded down to whole blocks. Nothing is set apart for it.</param>
    /// <param name="isDirect">True when transfers go past the page cache; not every file system can.</param>
    /// <returns>For reading and writing; to be handed to the process that has the pages.</returns>
    /// <exception cref="SwapStoreException">
    /// There is no such folder, it may not be used, its file system has no files without a name, or none of that size.
    /// </exception>
    public static FileDescriptorHandle Create(string folder, ulong limit, out bool isDirect)
    {
        SwapStore.CheckLimit(limit);
        FileDescriptorHandle file = Open(folder, out isDirect);
        int answer = BlockFile.Resize(file, limit - (limit % SwapStore.BlockBytes));
        if (answer < 0)
        {
            file.Dispose();
            KernelException cause = new("ftruncate", -answer);
            throw new SwapStoreException(
                $"swap file in {folder}: the file system has no files of {limit} bytes: {cause.Message}", isFull: true, cause);
        }

        return file;
    }

    /// <summary>Makes one without a size: it grows as it is written.</summary>
    /// <param name="folder">On whose file system it lies.</param>
    /// <param name="isDirect">True when transfers go past the page cache; not every file system can.</param>
    /// <exception cref="SwapStoreException">
    /// There is no such folder, it may not be used, or its file system has no files without a name.
    /// </exception>
    public static FileDescriptorHandle Open(string folder, out bool isDirect)
    {
        try
        {
            FileDescriptorHandle file = UnnamedFile.Create(folder, direct: true);
            BlockFileInfo info = BlockFile.Inspect(file);
            if (Math.Max(info.DirectOffsetAlign, info.DirectMemoryAlign) <= SwapStore.BlockBytes)
            {
                isDirect = true;
                return file;
            }

            file.Dispose(); // blocks of more than 4 KiB
        }
        catch (KernelException cause) when (cause.Errno == Errno.EINVAL)
        {
            // no O_DIRECT here
        }
        catch (KernelException cause)
        {
            throw Refuse(folder, cause);
        }

        try
        {
            isDirect = false;
            return UnnamedFile.Create(folder, direct: false);
        }
        catch (KernelException cause)
        {
            throw Refuse(folder, cause);
        }
    }

    private static SwapStoreException Refuse(string folder, KernelException cause) => cause.Errno switch
    {
        Errno.EOPNOTSUPP or Errno.EISDIR => new SwapStoreException(
            $"swap file in {folder}: its file system has no files without a name (O_TMPFILE); name a folder on ext4, XFS, btrfs or tmpfs",
            isFull: false, cause),
        Errno.ENOSPC or Errno.EDQUOT => new SwapStoreException($"swap file in {folder}: {cause.Message}", isFull: true, cause),
        _ => new SwapStoreException($"swap file in {folder}: {cause.Message}", isFull: false, cause),
    };
}
