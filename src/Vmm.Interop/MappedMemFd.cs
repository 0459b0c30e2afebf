using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

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
    public MappedMemFd(string name, ulong length, ulong pageSize, AddressReservation? within = null, ulong offset = 0)
        : this(name, length, Create(name, length, pageSize), within, offset) { }

    private MappedMemFd(string name, ulong length, FileDescriptorHandle file, AddressReservation? within, ulong offset)
        : base(ownsHandle: true)
    {
        Name = name;
        Length = length;
        _file = file;
        if (within is not null && (offset > within.Length || length > within.Length - offset))
        {
            _file.Dispose();
            throw new ArgumentOutOfRangeException(
                nameof(offset), $"{name}: {length} bytes at {offset} lie outside a reservation of {within.Length}");
        }

        _reserved = within is not null;
        nint at = within is null ? 0 : (nint)((ulong)within.Address + offset);
        int answer = MemoryCalls.MapGuest(_file, length, at, out nint address);
        if (answer < 0)
        {
            _file.Dispose();
            throw new KernelException($"mmap {name}, {length} bytes", -answer);
        }

        SetHandle(address);
    }

    /// <summary>Maps memory that another process made and passed: both see the same pages.</summary>
    /// <param name="passed">Its file; owned from here on, also when this throws.</param>
    /// <param name="name">What errors call it.</param>
    /// <param name="length">Bytes that it is to have.</param>
    /// <param name="within">Addresses to map it at; null lets the kernel choose.</param>
    /// <param name="offset">Where in <paramref name="within"/>.</param>
    /// <exception cref="KernelException">It is no memfd of that length, its length can still change (a touch behind its end would be a
    /// SIGBUS), or the kernel refused.</exception>
    public static MappedMemFd Adopt(
        FileDescriptorHandle passed, string name, ulong length, AddressReservation? within = null, ulong offset = 0)
    {
        if (!MemoryCalls.IsSealed(passed))
        {
            passed.Dispose();
            throw new KernelException($"{name}: what was passed is no memory whose length is fixed", Errno.EINVAL);
        }

        if (FileCalls.Seek(passed, 0, FileCalls.SeekEnd) is var has && has != (long)length)
        {
            passed.Dispose();
            throw new KernelException($"{name}: what was passed has {has} bytes, not {length}", Errno.EINVAL);
        }

        return new MappedMemFd(name, length, passed, within, offset);
    }

    private static FileDescriptorHandle Create(string name, ulong length, ulong pageSize)
    {
        uint shift = pageSize <= 4096 ? 0 : (uint)System.Numerics.BitOperations.TrailingZeroCount(pageSize);
        int fd = MemoryCalls.Create(name, length, shift);
        return fd < 0 ? throw new KernelException($"memfd_create {name}, {length} bytes", -fd) : new FileDescriptorHandle(fd);
    }

    /// <summary>The name given.</summary>
    public string Name { get; }

    /// <summary>The file, for a process that is to map it too.</summary>
    public FileDescriptorHandle BackingFile => _file;

    /// <summary>Length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>Address of the first byte in this process; valid while the handle is.</summary>
    public nint Address => handle;

    /// <summary>The next range that was ever touched; see <see cref="DataExtents.TryFindNext"/>.</summary>
    public bool TryFindData(ulong from, out ulong start, out ulong end) => DataExtents.TryFindNext(_file, from, out start, out end);

    /// <summary>Copies bytes out.</summary>
    public void CopyTo(ulong offset, Span<byte> destination) => Piece(offset, destination.Length).CopyTo(destination);

    /// <summary>Copies bytes in.</summary>
    public void CopyFrom(ulong offset, ReadOnlySpan<byte> source) => source.CopyTo(Piece(offset, source.Length));

    /// <summary>Reads what the file holds, without a touch of the mapping.</summary>
    /// <exception cref="KernelException">It cannot be read.</exception>
    public void ReadFile(ulong offset, Span<byte> content)
    {
        long answer = FileCalls.ReadAt(_file, content, offset);
        if (answer != content.Length)
        {
            throw new KernelException($"pread {Name}, {content.Length} bytes at {offset}", answer < 0 ? (int)-answer : Errno.EIO);
        }
    }

    /// <summary>Writes into the file, without a touch of the mapping; not for huge pages.</summary>
    /// <exception cref="KernelException">It cannot be written.</exception>
    public void WriteFile(ulong offset, ReadOnlySpan<byte> content)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset + (ulong)content.Length, Length, nameof(offset)); // it would grow
        long answer = FileCalls.WriteAt(_file, content, offset);
        if (answer != content.Length)
        {
            throw new KernelException($"pwrite {Name}, {content.Length} bytes at {offset}", answer < 0 ? (int)-answer : Errno.EIO);
        }
    }

    private unsafe Span<byte> Piece(ulong offset, int length) => offset <= Length && (ulong)length <= Length - offset
        ? new Span<byte>((void*)(Address + (nint)offset), length)
        : throw new ArgumentOutOfRangeException(nameof(offset), $"{Name}: {length} bytes at {offset} lie outside {Length}");

    /// <summary>Binds the whole memory to host nodes; works for pages not touched yet.</summary>
    /// <returns>0, or the errno of mbind(2): ENOSYS on a kernel without NUMA.</returns>
    public int Bind(MemoryPolicyMode mode, IReadOnlyList<int> nodes)
    {
        return Bind(mode, nodes, 0, Length);
    }

    /// <summary>Binds a range of the memory to host nodes; works for pages not touched yet.</summary>
    /// <param name="mode">The policy.</param>
    /// <param name="nodes">Host nodes.</param>
    /// <param name="offset">First byte, a multiple of the page size.</param>
    /// <param name="length">Bytes, a multiple of the page size.</param>
    /// <returns>0, or the errno of mbind(2): ENOSYS on a kernel without NUMA.</returns>
    public int Bind(MemoryPolicyMode mode, IReadOnlyList<int> nodes, ulong offset, ulong length)
    {
        if (offset > Length || length > Length - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"{Name}: {length} bytes at {offset} lie outside {Length}");
        }

        ulong[] mask = Bits(nodes);
        return -MemoryCalls.Bind((nint)((ulong)handle + offset), length, (int)mode, mask);
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
        KernelException.ThrowIfError(MemoryCalls.NodesOf(pages, status), "move_pages");
        for (int i = 0; i < count; i++)
        {
            status[i] = Math.Max(status[i], -1);
        }

        return status;
    }

    /// <summary>Takes the whole memory's policy away: pages not touched yet come from where the kernel likes.</summary>
    /// <returns>0, or the errno of mbind(2).</returns>
    public int Unbind() => -MemoryCalls.Bind(handle, Length, mode: 0, []);

    /// <summary>Asks for the host nodes of some pages.</summary>
    /// <param name="firstPage">The first, in pages of <paramref name="pageSize"/>.</param>
    /// <param name="pageSize">Bytes of a page: one answer each.</param>
    /// <param name="addresses">Room for as many addresses as <paramref name="nodes"/> has places.</param>
    /// <param name="nodes">Takes the node of each page, -1 for one that is not present.</param>
    /// <exception cref="KernelException">The kernel cannot say.</exception>
    public void Locate(ulong firstPage, ulong pageSize, Span<nint> addresses, Span<int> nodes)
    {
        for (int i = 0; i < nodes.Length; i++)
        {
            addresses[i] = (nint)((ulong)handle + ((firstPage + (ulong)i) * pageSize));
        }

        KernelException.ThrowIfError(MemoryCalls.NodesOf(addresses[..nodes.Length], nodes), "move_pages");
        for (int i = 0; i < nodes.Length; i++)
        {
            nodes[i] = Math.Max(nodes[i], -1);
        }
    }

    /// <summary>Moves pages to one host node, move_pages(2). Which ones went is for <see cref="Locate"/> to say.</summary>
    /// <param name="pages">Numbers of pages.</param>
    /// <param name="pageSize">Bytes of a page.</param>
    /// <param name="node">The host node.</param>
    /// <returns>0, or the errno with which the kernel gave up; some pages may have gone all the same.</returns>
    public int Move(ReadOnlySpan<ulong> pages, ulong pageSize, int node)
    {
        nint[] addresses = new nint[pages.Length];
        int[] nodes = new int[pages.Length], status = new int[pages.Length];
        for (int i = 0; i < addresses.Length; i++)
        {
            addresses[i] = (nint)((ulong)handle + (pages[i] * pageSize));
            nodes[i] = node;
        }

        return -(int)Math.Min(0, MemoryCalls.Move(addresses, nodes, status));
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _file.Dispose();
        return (_reserved ? MemoryCalls.Vacate(handle, Length) : MemoryCalls.Unmap(handle, Length)) == 0;
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
    /// <summary>
    /// Gives the pages of a shared memfd mapping back to the host, MADV_REMOVE: they read as zeros and come back on the next touch.
    /// </summary>
    /// <param name="address">First byte, aligned to the mapping's page size.</param>
    /// <param name="length">Bytes, a multiple of that page size; the caller vouches that the range is mapped.</param>
    /// <returns>0, or the errno of madvise(2): EINVAL for memory that is not a shared mapping.</returns>
    public static int Discard(nint address, ulong length) => -MemoryCalls.Discard(address, length);

    /// <summary>Brings the pages of a range into being from where its policy says, MADV_POPULATE_WRITE; their content stays.</summary>
    /// <param name="address">First byte, aligned to the mapping's page size.</param>
    /// <param name="length">Bytes; the caller vouches that the range is mapped.</param>
    /// <returns>0, or the errno of madvise(2): there are no (huge) pages left. Some may be there then.</returns>
    public static int Populate(nint address, ulong length) => -MemoryCalls.Populate(address, length);
}

/// <summary>Where threads run.</summary>
public static class ThreadPlacement
{
    /// <summary>Lets the calling thread run on these host CPUs only, sched_setaffinity(2).</summary>
    /// <exception cref="KernelException">None of the CPUs is allowed to this process.</exception>
    public static void PinCurrent(IReadOnlyList<int> cpus) => Pin(0, cpus);

    /// <summary>The calling thread's number, gettid(2).</summary>
    public static int CurrentId => ThreadCalls.CurrentId();

    /// <summary>Lets another thread of this process run on these host CPUs only.</summary>
    /// <param name="thread">Its number; 0 is the calling thread.</param>
    /// <param name="cpus">Host CPUs.</param>
    /// <exception cref="KernelException">None of the CPUs is allowed to this process, or the thread is gone (ESRCH).</exception>
    public static void Pin(int thread, IReadOnlyList<int> cpus)
    {
        ulong[] mask = MappedMemFd.Bits(cpus);
        int answer = ThreadCalls.Pin(thread, mask);
        if (answer < 0)
        {
            throw new KernelException($"sched_setaffinity {string.Join(',', cpus)}", -answer);
        }
    }
}
