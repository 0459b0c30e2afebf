using System.Buffers.Binary;
using System.Text;

namespace Vmm.Interop;

/// <summary>
/// A request of rtnetlink(7): a header, a structure of the family, attributes that may hold others. Numbers are the machine's, which is
/// little-endian.
/// </summary>
public sealed class RouteMessage
{
    internal const int HeaderLength = 16;
    private const ushort Nested = 0x8000;
    private const int TypeAt = 4, FlagsAt = 6, Room = 16 << 10;

    private readonly byte[] _bytes = new byte[Room];

    private RouteMessage(ushort type, ushort flags, ReadOnlySpan<byte> family)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(TypeAt), type);
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(FlagsAt), (ushort)(flags | 1 /* NLM_F_REQUEST */));
        family.CopyTo(_bytes.AsSpan(HeaderLength));
        Length = HeaderLength + family.Length;
    }

    internal int Length { get; private set; }

    internal ReadOnlySpan<byte> Bytes
    {
        get
        {
            BinaryPrimitives.WriteInt32LittleEndian(_bytes, Length);
            return _bytes.AsSpan(0, Length);
        }
    }

    /// <summary>About an interface: struct ifinfomsg.</summary>
    /// <param name="type">RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK, RTM_DELLINK.</param>
    /// <param name="index">The interface; 0: an attribute names it.</param>
    /// <param name="family">AF_UNSPEC, or AF_BRIDGE for a port of a bridge.</param>
    /// <param name="flags">IFF_ flags it is to have.</param>
    /// <param name="acknowledge">An answer is wanted that says only whether it was done.</param>
    /// <param name="create">It is a new one, which is not there yet.</param>
    public static RouteMessage Link(
        ushort type, int index, byte family = 0, uint flags = 0, bool acknowledge = true, bool create = false)
    {
        Span<byte> head = stackalloc byte[16];
        head.Clear();
        head[0] = family;
        BinaryPrimitives.WriteInt32LittleEndian(head[4..], index);
        BinaryPrimitives.WriteUInt32LittleEndian(head[8..], flags);
        BinaryPrimitives.WriteUInt32LittleEndian(head[12..], flags); // the mask of those that change
        return new RouteMessage(type, (ushort)((acknowledge ? 4 : 0) | (create ? 0x600 : 0) /* NLM_F_CREATE, EXCL */), head);
    }

    /// <summary>
    /// Gives an interface an address, which it may have already: struct ifaddrmsg. Whether another has one of IPv6 is not asked.
    /// </summary>
    /// <param name="index">The interface.</param>
    /// <param name="address">The address, 4 or 16 bytes.</param>
    /// <param name="prefix">Bits of it that are the network's.</param>
    public static RouteMessage NewAddress(int index, ReadOnlySpan<byte> address, int prefix) =>
        OfAddress(20, 4 | 0x100 | 0x400, index, address, prefix); // RTM_NEWADDR; NLM_F_ACK, REPLACE, CREATE

    /// <summary>Takes an address from an interface.</summary>
    /// <param name="index">The interface.</param>
    /// <param name="address">The address, 4 or 16 bytes.</param>
    /// <param name="prefix">Bits of it that are the network's.</param>
    public static RouteMessage RemoveAddress(int index, ReadOnlySpan<byte> address, int prefix) =>
        OfAddress(21, 4, index, address, prefix); // RTM_DELADDR; NLM_F_ACK

    private static RouteMessage OfAddress(ushort type, ushort flags, int index, ReadOnlySpan<byte> address, int prefix)
    {
        bool ipv6 = address.Length == 16;
        Span<byte> head = [ipv6 ? (byte)10 /* AF_INET6 */ : (byte)2 /* AF_INET */, (byte)prefix, ipv6 ? (byte)2 /* NODAD */ : (byte)0,
            0, 0, 0, 0, 0];
        BinaryPrimitives.WriteInt32LittleEndian(head[4..], index);
        return new RouteMessage(type, flags, head).Add(2, address).Add(1, address); // IFA_LOCAL, IFA_ADDRESS
    }

    /// <summary>
    /// An attribute that holds the structure of an interface, and those which <paramref name="inside"/> adds: VETH_INFO_PEER.
    /// </summary>
    public RouteMessage AddPeer(ushort type, Action<RouteMessage> inside) => Add(type, m =>
    {
        m.Length += 16; // struct ifinfomsg: nothing is said
        inside(m);
    });

    /// <summary>About traffic control of an interface, a new thing: struct tcmsg.</summary>
    /// <param name="type">RTM_NEWQDISC, RTM_NEWTFILTER.</param>
    /// <param name="index">The interface.</param>
    /// <param name="handle">Its handle.</param>
    /// <param name="parent">What it is attached to.</param>
    /// <param name="info">Priority and protocol of a filter.</param>
    public static RouteMessage Traffic(ushort type, int index, uint handle, uint parent, uint info = 0)
    {
        Span<byte> head = stackalloc byte[20];
        head.Clear();
        BinaryPrimitives.WriteInt32LittleEndian(head[4..], index);
        BinaryPrimitives.WriteUInt32LittleEndian(head[8..], handle);
        BinaryPrimitives.WriteUInt32LittleEndian(head[12..], parent);
        BinaryPrimitives.WriteUInt32LittleEndian(head[16..], info);
        return new RouteMessage(type, 4 | 0x200 | 0x400 /* NLM_F_ACK, EXCL, CREATE */, head);
    }

    /// <summary>An attribute of any bytes.</summary>
    public RouteMessage Add(ushort type, ReadOnlySpan<byte> value)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(Length), (ushort)(4 + value.Length));
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(Length + 2), type);
        value.CopyTo(_bytes.AsSpan(Length + 4));
        Length += 4 + ((value.Length + 3) & ~3);
        return this;
    }

    /// <summary>An attribute that is a number of 32 bits.</summary>
    public RouteMessage Add(ushort type, uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return Add(type, bytes);
    }

    /// <summary>An attribute that is a text with a zero behind it.</summary>
    public RouteMessage Add(ushort type, string text) => Add(type, [.. Encoding.UTF8.GetBytes(text), 0]);

    /// <summary>An attribute that holds those which <paramref name="inside"/> adds.</summary>
    public RouteMessage Add(ushort type, Action<RouteMessage> inside)
    {
        int at = Length;
        Add(type, []);
        inside(this);
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(at), (ushort)(Length - at));
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(at + 2), (ushort)(type | Nested));
        return this;
    }
}
