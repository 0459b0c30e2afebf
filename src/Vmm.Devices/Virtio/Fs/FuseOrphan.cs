using System.Buffers.Binary;
using Vmm.Devices.VhostUser;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Fs;

/// <summary>
/// Answers the file system requests of a guest whose virtiofsd is gone. It took with it what it knew of the guest's inodes and open
/// files, so everything fails with ENOTCONN, as with any FUSE server that died, until the guest mounts anew: its FUSE_INIT goes to the next
/// one, and waits for that.
/// </summary>
/// <param name="hasNext">There will be another virtiofsd; false: FUSE_INIT fails as everything does.</param>
internal sealed class FuseOrphan(bool hasNext) : IOrphanHandler
{
    private const int HeaderLength = 40, AnswerLength = 16; // struct fuse_in_header, fuse_out_header of linux/fuse.h
    private const uint OpcodeInit = 26;

    private bool _mayBegin, _begins, _waits;

    /// <inheritdoc/>
    public uint MostReadable => HeaderLength;

    /// <inheritdoc/>
    public uint MostWritable => AnswerLength;

    /// <inheritdoc/>
    public bool MayBegin
    {
        set
        {
            _mayBegin = value;
            _waits &= !value;
        }
    }

    /// <inheritdoc/>
    public bool WantsChain => !_begins && !_waits;

    /// <inheritdoc/>
    public bool TakeBegins()
    {
        bool begins = _begins;
        _begins = false;
        return begins;
    }

    /// <inheritdoc/>
    public ChainResult Handle(RequestChain chain, out uint written)
    {
        written = 0;
        Span<byte> header = stackalloc byte[HeaderLength];
        if (chain.Read(0, header) < HeaderLength)
        {
            return ChainResult.Malformed;
        }

        if ((_mayBegin || hasNext) && BinaryPrimitives.ReadUInt32LittleEndian(header[4..]) == OpcodeInit)
        {
            (_begins, _waits) = (_mayBegin, !_mayBegin); // nothing of that mount comes before its answer
            return ChainResult.PutBack;
        }

        if (chain.WritableBytes < AnswerLength)
        {
            return ChainResult.Done; // FUSE_FORGET and its like have no answer
        }

        Span<byte> answer = stackalloc byte[AnswerLength];
        BinaryPrimitives.WriteUInt32LittleEndian(answer, AnswerLength);
        BinaryPrimitives.WriteInt32LittleEndian(answer[4..], -Errno.ENOTCONN);
        header.Slice(8, 8).CopyTo(answer[8..]); // the request's unique number
        written = (uint)chain.Write(0, answer);
        return ChainResult.Done;
    }
}
