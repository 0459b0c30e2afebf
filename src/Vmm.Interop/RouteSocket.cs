using System.Buffers.Binary;
using System.Text;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>What is known of a network interface.</summary>
/// <param name="Index">Its number.</param>
/// <param name="Mtu">Its MTU, bytes.</param>
/// <param name="Kind">What drives it, e.g. <c>bridge</c>; empty for a card.</param>
/// <param name="SeparatesVlans">A bridge that filters by VLAN.</param>
/// <param name="Alias">Text that an administrator, or a program, gave it.</param>
/// <param name="Master">Number of the bridge, or the like, that it is a port of; 0: none.</param>
public sealed record InterfaceFacts(int Index, int Mtu, string Kind, bool SeparatesVlans, string Alias, int Master = 0);

/// <summary>Asks the kernel about network interfaces of this namespace and changes them, rtnetlink(7). One thread at a time.</summary>
public sealed class RouteSocket : IDisposable
{
    private const ushort GetLink = 18, Error = 2;
    private const ushort Name = 3, Mtu = 4, MasterOf = 10, LinkInfo = 18, Alias = 20, InfoKind = 1, InfoData = 2, VlanFiltering = 7;

    private readonly FileDescriptorHandle _socket;
    private readonly byte[] _answer = new byte[32 << 10];

    /// <summary>Opens one.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public RouteSocket() =>
        _socket = new FileDescriptorHandle(KernelException.ThrowIfError(RouteCalls.Open(), "socket(AF_NETLINK)"));

    /// <summary>Has a request carried out that wants an acknowledgement: 0, or the errno of why not.</summary>
    public int Do(RouteMessage request)
    {
        ReadOnlySpan<byte> answer = Exchange(request, out int errno);
        return errno != 0 ? errno
            : answer.Length >= RouteMessage.HeaderLength + 4 && TypeOf(answer) == Error
                ? -BinaryPrimitives.ReadInt32LittleEndian(answer[RouteMessage.HeaderLength..])
                : Errno.EIO;
    }

    /// <summary>Looks for an interface; null when there is none of this name.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public InterfaceFacts? Find(string name)
    {
        if (name.Length is 0 or > 15)
        {
            return null;
        }

        ReadOnlySpan<byte> answer = Exchange(RouteMessage.Link(GetLink, 0, acknowledge: false).Add(Name, name), out int errno);
        if (errno == 0 && answer.Length >= RouteMessage.HeaderLength + 4 && TypeOf(answer) == Error)
        {
            errno = -BinaryPrimitives.ReadInt32LittleEndian(answer[RouteMessage.HeaderLength..]);
        }

        if (errno is Errno.ENODEV)
        {
            return null;
        }

        return errno == 0 && answer.Length >= RouteMessage.HeaderLength + 16
            ? Read(
                BinaryPrimitives.ReadInt32LittleEndian(answer[(RouteMessage.HeaderLength + 4)..]),
                answer[(RouteMessage.HeaderLength + 16)..])
            : throw new KernelException($"look for the interface {name}", errno == 0 ? Errno.EIO : errno);
    }

    /// <inheritdoc/>
    public void Dispose() => _socket.Dispose();

    private ReadOnlySpan<byte> Exchange(RouteMessage request, out int errno)
    {
        int answer = SocketCalls.Send(_socket, request.Bytes);
        answer = answer < 0 ? answer : SocketCalls.Receive(_socket, _answer, peek: false);
        errno = Math.Max(0, -answer);
        return _answer.AsSpan(0, Math.Max(0, answer));
    }

    private static ushort TypeOf(ReadOnlySpan<byte> message) => BinaryPrimitives.ReadUInt16LittleEndian(message[4..]);

    private static InterfaceFacts Read(int index, ReadOnlySpan<byte> attributes)
    {
        int mtu = 0, master = 0;
        string kind = "", alias = "";
        bool separates = false;
        while (TryTake(ref attributes, out ushort type, out ReadOnlySpan<byte> value))
        {
            switch (type)
            {
                case Mtu when value.Length >= 4:
                    mtu = BinaryPrimitives.ReadInt32LittleEndian(value);
                    break;
                case MasterOf when value.Length >= 4:
                    master = BinaryPrimitives.ReadInt32LittleEndian(value);
                    break;
                case Alias:
                    alias = Text(value);
                    break;
                case LinkInfo:
                    while (TryTake(ref value, out ushort inner, out ReadOnlySpan<byte> info))
                    {
                        kind = inner == InfoKind ? Text(info) : kind;
                        separates |= inner == InfoData && string.Equals(kind, "bridge", StringComparison.Ordinal) && Filters(info);
                    }

                    break;
            }
        }

        return new InterfaceFacts(index, mtu, kind, separates, alias, master);
    }

    private static bool Filters(ReadOnlySpan<byte> bridge)
    {
        bool filters = false;
        while (TryTake(ref bridge, out ushort type, out ReadOnlySpan<byte> value))
        {
            filters |= type == VlanFiltering && value.Length > 0 && value[0] != 0;
        }

        return filters;
    }

    private static string Text(ReadOnlySpan<byte> value) => Encoding.UTF8.GetString(value.TrimEnd((byte)0));

    // struct rtattr: length and type, then the value, filled up to four bytes.
    private static bool TryTake(ref ReadOnlySpan<byte> attributes, out ushort type, out ReadOnlySpan<byte> value)
    {
        type = 0;
        value = default;
        if (attributes.Length < 4)
        {
            return false;
        }

        int length = BinaryPrimitives.ReadUInt16LittleEndian(attributes);
        if (length < 4 || length > attributes.Length)
        {
            return false;
        }

        type = (ushort)(BinaryPrimitives.ReadUInt16LittleEndian(attributes[2..]) & 0x3fff);
        value = attributes[4..length];
        attributes = attributes[Math.Min(attributes.Length, (length + 3) & ~3)..];
        return true;
    }
}
