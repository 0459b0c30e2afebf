using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>NUMA memory policies, mbind(2).</summary>
public enum MemoryPolicyMode
{
    /// <summary>MPOL_PREFERRED: one node, others when it is full.</summary>
    Preferred = 1,

    /// <summary>MPOL_BIND: these nodes only.</summary>
    Bind = 2,

    /// <summary>MPOL_INTERLEAVE: page by page over these nodes.</summary>
    Interleave = 3,
}

/// <summary>A memfd mapped shared, whole, for as long as this handle lives: the memory of one vnode.</summary>
public sealed class MappedMemFd : SafeHandleMinusOneIsInvalid
{
    private readonly FileDescriptorHandle _file;
    private readonly bool _reserved;

    /// <summary>Creates and maps the memory; nothing is touched yet.</summary>
    /// <param name="name">Shown in /proc/PID/maps after <c>/memfd:</c>.</param>
    /// <param name="length">Bytes, a multiple of the page size.</param>
    /// <param name="pageSize">4 KiB, 2 MiB or 1 GiB.</param>
    /// <exception cref="KernelException">The kernel refused, e.g. no huge pages of that size.</exception>
    /// <param name="within">Addresses to map it at; null lets the kernel choose.</param>
    /// <param name="offset">Where in <paramref name="within"/>, a multiple of the page size.</param>
    public MappedMemFd(string name, ulong length, ulong pageSize, AddressReservation? within = null, ulong offset = 0) : base(ownsHandle: true)
    {
        if (within is not null && (offset > within.Length || length > within.Length - offset))
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"{name}: {length} bytes at {offset} lie outside a reservation of {within.Length}");
        }

        Name = name;
        Length = length;
        uint shift = pageSize <= 4096 ? 0 : (uint)System.Numerics.BitOperations.TrailingZeroCount(pageSize);
        nint fd = Native.MemFdCreate(CString.Of(name), length, shift, out int errno);
        _file = fd < 0 ? throw new KernelException($"memfd_create {name}, {length} bytes", errno) : new FileDescriptorHandle(fd);
        _reserved = within is not null;
        nint address;
        if (within is null)
        {
            address = Native.MemoryMap(_file, length, out errno);
        }
        else
        {
            address = (nint)((ulong)within.Address + offset);
            errno = -Native.MemoryMapReserved(_file, address, length);
        }

        if (errno != 0)
        {
            _file.Dispose();
            throw new KernelException($"mmap {name}, {length} bytes", errno);
        }

        SetHandle(address);
    }

    /// <summary>The name given.</summary>
    public string Name { get; }

    /// <summary>Length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>Address of the first byte in this process; valid while the handle is.</summary>
    public nint Address => handle;

    /// <summary>Binds the whole memory to host nodes; works for pages not touched yet.</summary>
    /// <returns>0, or the errno of mbind(2): ENOSYS on a kernel without NUMA.</returns>
    public int Bind(MemoryPolicyMode mode, IReadOnlyList<int> nodes)
    {
        ulong[] mask = Bits(nodes);
        return -Native.Bind(handle, Length, (int)mode, mask, (uint)mask.Length);
    }

    /// <summary>The host node of each 4 KiB page from <paramref name="firstPage"/>, -1 for pages not present.</summary>
    /// <exception cref="KernelException">The kernel cannot say.</exception>
    public int[] NodesOfPages(ulong firstPage, int count)
    {
        nint[] pages = new nint[count];
        for (int i = 0; i < count; i++)
        {
            pages[i] = (nint)((ulong)handle + ((firstPage + (ulong)i) * 4096));
        }

        int[] status = new int[count];
        KernelException.ThrowIfError(Native.PageNodes(pages, (ulong)count, status), "move_pages");
        for (int i = 0; i < count; i++)
        {
            status[i] = Math.Max(status[i], -1);
        }

        return status;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _file.Dispose();
        return (_reserved ? Native.MemoryVacate(handle, Length) : Native.MemoryUnmap(handle, Length)) == 0;
    }

    internal static ulong[] Bits(IReadOnlyList<int> numbers)
    {
        int greatest = 0;
        foreach (int number in numbers)
        {
            greatest = Math.Max(greatest, number);
        }

        ulong[] mask = new ulong[(greatest / 64) + 1];
        foreach (int number in numbers)
        {
            mask[number / 64] |= 1UL << (number % 64);
        }

        return mask;
    }
}

/// <summary>Pages of guest memory known by their address in this process.</summary>
public static class HostPages
{
    /// <summary>Gives the pages of a shared memfd mapping back to the host, MADV_REMOVE: they read as zeros and come back on the next touch.</summary>
    /// <param name="address">First byte, aligned to the mapping's page size.</param>
    /// <param name="length">Bytes, a multiple of that page size; the caller vouches that the range is mapped.</param>
    /// <returns>0, or the errno of madvise(2): EINVAL for memory that is not a shared mapping.</returns>
    public static int Discard(nint address, ulong length) => -Native.MemoryDiscard(address, length);
}

/// <summary>Where threads run.</summary>
public static class ThreadPlacement
{
    /// <summary>Lets the calling thread run on these host CPUs only, sched_setaffinity(2).</summary>
    /// <exception cref="KernelException">None of the CPUs is allowed to this process.</exception>
    public static void PinCurrent(IReadOnlyList<int> cpus)
    {
        ulong[] mask = MappedMemFd.Bits(cpus);
        int answer = Native.PinThread(mask, (uint)mask.Length);
        if (answer < 0)
        {
            throw new KernelException($"sched_setaffinity {string.Join(',', cpus)}", -answer);
        }
    }
}
