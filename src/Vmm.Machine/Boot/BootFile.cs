using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Machine.Boot;

/// <summary>A kernel or initrd as bytes that can be read at an offset: a file on disk, or memory.</summary>
public sealed class BootFile : IDisposable
{
    private readonly FileDescriptorHandle? _handle;
    private readonly ReadOnlyMemory<byte> _bytes;

    private BootFile(string name, FileDescriptorHandle? handle, ReadOnlyMemory<byte> bytes, ulong length)
    {
        Name = name;
        _handle = handle;
        _bytes = bytes;
        Length = length;
    }

    /// <summary>What errors call it: the path as given.</summary>
    public string Name { get; }

    /// <summary>Length in bytes when it was opened.</summary>
    public ulong Length { get; }

    /// <summary>Opens a regular file for reading.</summary>
    /// <exception cref="BootException">It does not exist, may not be read, or is not a regular file.</exception>
    public static BootFile Open(string path)
    {
        FileDescriptorHandle? handle = null;
        try
        {
            handle = BlockFile.Open(path, writable: false, direct: false);
            return new BootFile(path, handle, default, BlockFile.Inspect(handle).Size);
        }
        catch (KernelException e)
        {
            handle?.Dispose();
            throw new BootException(path, "file", null, e.Errno switch
            {
                Errno.ENOENT or Errno.ENOTDIR => "does not exist",
                Errno.EACCES => "permission denied",
                Errno.EISDIR => "is a directory",
                Errno.ENOTBLK => "is neither a file nor a block device",
                _ => e.Message,
            });
        }
    }

    /// <summary>Takes over an open file; <paramref name="name"/> is used in errors.</summary>
    /// <exception cref="BootException">It is not a file with a length.</exception>
    public static BootFile FromDescriptor(string name, FileDescriptorHandle descriptor)
    {
        try
        {
            return new BootFile(name, descriptor, default, BlockFile.Inspect(descriptor).Size);
        }
        catch (KernelException e)
        {
            descriptor.Dispose();
            throw new BootException(name, "file", null, e.Message);
        }
    }

    /// <summary>The descriptor, to be passed to another process; null for bytes in memory. Stays this object's.</summary>
    public FileDescriptorHandle? Descriptor => _handle;

    /// <summary>Bytes already in memory; <paramref name="name"/> is used in errors.</summary>
    public static BootFile FromBytes(ReadOnlyMemory<byte> bytes, string name) => new(name, null, bytes, (ulong)bytes.Length);

    /// <inheritdoc/>
    public void Dispose() => _handle?.Dispose();

    /// <summary>True when the range lies inside the file.</summary>
    internal bool Contains(ulong offset, ulong length) => offset <= Length && length <= Length - offset;

    /// <summary>Fills <paramref name="destination"/>, or throws naming <paramref name="field"/>.</summary>
    internal void Read(ulong offset, Span<byte> destination, string field)
    {
        if (!Contains(offset, (ulong)destination.Length))
        {
            throw new BootException(Name, field, offset, $"truncated: needs {destination.Length} bytes, the file has {Length}");
        }

        if (_handle is null)
        {
            _bytes.Span.Slice((int)offset, destination.Length).CopyTo(destination);
            return;
        }

        try
        {
            if (BlockFile.ReadAt(_handle, destination, offset) < destination.Length)
            {
                throw new BootException(Name, field, offset, "the file became shorter while it was read");
            }
        }
        catch (KernelException e)
        {
            throw new BootException(Name, field, offset, e.Message);
        }
    }

    internal uint ReadUInt32(ulong offset, string field)
    {
        Span<byte> value = stackalloc byte[4];
        Read(offset, value, field);
        return BinaryPrimitives.ReadUInt32LittleEndian(value);
    }
}
