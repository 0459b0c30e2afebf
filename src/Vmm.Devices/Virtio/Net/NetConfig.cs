using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>Feature bits of virtio 1.2 section 5.1.3, as masks.</summary>
internal static class NetFeatures
{
    public const ulong Checksum = 1UL << 0;
    public const ulong GuestChecksum = 1UL << 1;
    public const ulong ControlGuestOffloads = 1UL << 2;
    public const ulong Mtu = 1UL << 3;
    public const ulong Mac = 1UL << 5;
    public const ulong GuestTso4 = 1UL << 7;
    public const ulong GuestTso6 = 1UL << 8;
    public const ulong GuestEcn = 1UL << 9;
    public const ulong HostTso4 = 1UL << 11;
    public const ulong HostTso6 = 1UL << 12;
    public const ulong HostEcn = 1UL << 13;
    public const ulong MergeableBuffers = 1UL << 15;
    public const ulong Status = 1UL << 16;
    public const ulong ControlQueue = 1UL << 17;
    public const ulong ControlReceive = 1UL << 18;
    public const ulong MultiQueue = 1UL << 22;

    public const ulong GuestOffloads = GuestChecksum | GuestTso4 | GuestTso6 | GuestEcn;
    public const ulong GuestSegments = GuestTso4 | GuestTso6;

    public static ulong For(TapOffloads offloads, int pairs, int mtu)
    {
        ulong features = Mac | Status | MergeableBuffers | ControlQueue | ControlReceive;
        features |= mtu > 0 ? Mtu : 0;
        features |= pairs > 1 ? MultiQueue : 0;
        features |= offloads.HasFlag(TapOffloads.Checksum) ? Checksum | GuestChecksum | ControlGuestOffloads : 0;
        features |= offloads.HasFlag(TapOffloads.Tso4) ? GuestTso4 | HostTso4 : 0;
        features |= offloads.HasFlag(TapOffloads.Tso6) ? GuestTso6 | HostTso6 : 0;
        features |= offloads.HasFlag(TapOffloads.TsoEcn) ? GuestEcn | HostEcn : 0;
        return features;
    }

    /// <summary>What the guest takes unfinished, from the feature bits (5.1.6.5.6.1 uses the same bits).</summary>
    public static TapOffloads Offloads(ulong bits) =>
        (bits & GuestChecksum) == 0 ? TapOffloads.None // 5.1.3.1: the others need it
        : TapOffloads.Checksum | ((bits & GuestTso4) != 0 ? TapOffloads.Tso4 : 0) | ((bits & GuestTso6) != 0 ? TapOffloads.Tso6 : 0)
            | ((bits & GuestEcn) != 0 && (bits & GuestSegments) != 0 ? TapOffloads.TsoEcn : 0);
}

/// <summary>The configuration space, virtio 1.2 section 5.1.4; the driver writes none of it.</summary>
internal sealed class NetConfig
{
    public const int Length = 12;
    private const int StatusAt = 6;
    private readonly byte[] _bytes = new byte[Length];

    public NetConfig(ReadOnlySpan<byte> mac, int pairs, int mtu)
    {
        mac.CopyTo(_bytes);
        _bytes[StatusAt] = 1; // VIRTIO_NET_S_LINK_UP
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(8), (ushort)pairs);
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(10), (ushort)mtu);
    }

    public ReadOnlySpan<byte> Mac => _bytes.AsSpan(0, StatusAt);

    public bool LinkUp
    {
        get => Volatile.Read(ref _bytes[StatusAt]) != 0;
        set => Volatile.Write(ref _bytes[StatusAt], value ? (byte)1 : (byte)0);
    }

    public void Read(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            ReadOnlySpan<byte> rest = _bytes.AsSpan(offset);
            rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
        }
    }
}
