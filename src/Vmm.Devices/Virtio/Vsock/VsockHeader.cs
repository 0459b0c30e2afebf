using System.Buffers.Binary;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>Packet operations, virtio 1.2 section 5.10.6.</summary>
internal enum VsockOperation : ushort
{
    Invalid = 0,
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

/// <summary>Flags of <see cref="VsockOperation.Shutdown"/>, 5.10.6.1.</summary>
[Flags]
internal enum VsockShutdown : uint
{
    None = 0,
    WillNotReceive = 1,
    WillNotSend = 2,
    Both = 3,
}

/// <summary>struct virtio_vsock_hdr, virtio 1.2 section 5.10.6: 44 bytes, little endian.</summary>
internal readonly record struct VsockHeader
{
    /// <summary>Bytes of a header.</summary>
    public const int Bytes = 44;

    /// <summary>The only socket type here: a stream.</summary>
    public const ushort Stream = 1;

    public ulong SourceCid { get; init; }

    public ulong DestinationCid { get; init; }

    public uint SourcePort { get; init; }

    public uint DestinationPort { get; init; }

    public uint Length { get; init; }

    public ushort Type { get; init; }

    public VsockOperation Operation { get; init; }

    public uint Flags { get; init; }

    public uint BufferBytes { get; init; }

    public uint ForwardedBytes { get; init; }

    public static VsockHeader Read(ReadOnlySpan<byte> raw) => new()
    {
        SourceCid = BinaryPrimitives.ReadUInt64LittleEndian(raw),
        DestinationCid = BinaryPrimitives.ReadUInt64LittleEndian(raw[8..]),
        SourcePort = BinaryPrimitives.ReadUInt32LittleEndian(raw[16..]),
        DestinationPort = BinaryPrimitives.ReadUInt32LittleEndian(raw[20..]),
        Length = BinaryPrimitives.ReadUInt32LittleEndian(raw[24..]),
        Type = BinaryPrimitives.ReadUInt16LittleEndian(raw[28..]),
        Operation = (VsockOperation)BinaryPrimitives.ReadUInt16LittleEndian(raw[30..]),
        Flags = BinaryPrimitives.ReadUInt32LittleEndian(raw[32..]),
        BufferBytes = BinaryPrimitives.ReadUInt32LittleEndian(raw[36..]),
        ForwardedBytes = BinaryPrimitives.ReadUInt32LittleEndian(raw[40..]),
    };

    public void Write(Span<byte> raw)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(raw, SourceCid);
        BinaryPrimitives.WriteUInt64LittleEndian(raw[8..], DestinationCid);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[16..], SourcePort);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[20..], DestinationPort);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[24..], Length);
        BinaryPrimitives.WriteUInt16LittleEndian(raw[28..], Type);
        BinaryPrimitives.WriteUInt16LittleEndian(raw[30..], (ushort)Operation);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[32..], Flags);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[36..], BufferBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[40..], ForwardedBytes);
    }
}
