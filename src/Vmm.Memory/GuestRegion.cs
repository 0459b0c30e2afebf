using System.Runtime.CompilerServices;

namespace Vmm.Memory;

/// <summary>One contiguous piece of guest RAM: where the guest sees it and where this process has it mapped.</summary>
public readonly unsafe struct GuestRegion
{
    private readonly byte* _host;

    /// <summary>
    /// Describes <paramref name="length"/> of RAM at <paramref name="start"/>, mapped at <paramref name="hostAddress"/> in pages of
    /// <paramref name="pageSize"/> bytes.
    /// </summary>
    public GuestRegion(
        GuestAddress start,
        ByteSize length,
        nint hostAddress,
        int vnode = 0,
        ulong pageSize = ByteSize.BytesPerPage,
        bool isReadOnly = false)
    {
        IsReadOnly = isReadOnly;
        PageSize = pageSize;
        Start = start;
        Length = length;
        _host = (byte*)hostAddress;
        Vnode = vnode;
    }

    /// <summary>First guest physical address.</summary>
    public GuestAddress Start { get; }

    /// <summary>How much RAM it is.</summary>
    public ByteSize Length { get; }

    /// <summary>The virtual NUMA node this RAM belongs to.</summary>
    public int Vnode { get; }

    /// <summary>Size of the host pages behind it, in bytes: what can be given back to the host at once.</summary>
    public ulong PageSize { get; }

    /// <summary>Devices read it and do not write it: memory of a device that is mapped without the right to write.</summary>
    public bool IsReadOnly { get; }

    /// <summary>Address of the first byte in this process, for KVM memory slots and mbind.</summary>
    public nint HostAddress => (nint)_host;

    /// <summary>True when <paramref name="next"/> goes on where this region ends, for the guest and in this process.</summary>
    internal bool Touches(in GuestRegion next) =>
        next.Start.Value == Start.Value + Length && next._host == _host + Length.Bytes && next.IsReadOnly == IsReadOnly;

    /// <summary>Host pointer for a range that lies wholly inside the region; false otherwise.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryMap(GuestAddress at, ulong length, out byte* host)
    {
        ulong offset = unchecked(at.Value - Start.Value);
        if (at.Value < Start.Value || offset >= Length || length > Length - offset)
        {
            host = null;
            return false;
        }

        host = _host + offset;
        return true;
    }
}
