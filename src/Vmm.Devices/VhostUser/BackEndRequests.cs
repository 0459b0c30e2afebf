using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.VhostUser;

/// <summary>
/// The channel on which back ends ask something of us (VHOST_USER_PROTOCOL_F_BACKEND_REQ). One for all back ends of a device: each gets its
/// far end. Taken is that the configuration changed, and everything else is refused. One thread at a time.
/// </summary>
internal sealed class BackEndRequests : IDisposable
{
    private const uint ConfigChanged = 2; // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG
    private const uint VersionMask = 3, Version = 1, Reply = 4, NeedReply = 8;
    private const int MostPayload = 4096, MostBytes = 64 << 10; // of one look

    private readonly UnixStream _own;
    private readonly byte[] _header = new byte[VhostUserMessage.HeaderLength];
    private int _got; // bytes of the header
    private int _skip; // bytes of its payload that are still to come

    internal BackEndRequests() => (_own, Theirs) = UnixStream.CreatePair();

    /// <summary>Our end, for polling.</summary>
    internal FileDescriptorHandle Handle => _own;

    /// <summary>The end of back ends.</summary>
    internal FileDescriptorHandle Theirs { get; }

    /// <summary>Answers what is there. Descriptors that come along have no room here, so the kernel closes them.</summary>
    /// <param name="changed">The configuration may be another one.</param>
    /// <returns>False when what is there is no request: whoever sends that has not learnt the protocol.</returns>
    internal bool TryTake(out bool changed)
    {
        changed = false;
        Span<byte> skipped = stackalloc byte[512];
        for (int budget = MostBytes; budget > 0;)
        {
            Span<byte> into = _skip > 0 ? skipped[..Math.Min(_skip, skipped.Length)] : _header.AsSpan(_got);
            int received = _own.Receive(into);
            if (received <= 0)
            {
                return true;
            }

            budget -= received;
            if (_skip > 0)
            {
                _skip -= received;
            }
            else if ((_got += received) == _header.Length && !TryRead(ref changed))
            {
                Forget(); // where the next request begins is not known
                return false;
            }
        }

        return true; // the rest when it is looked at again
    }

    /// <summary>Another back end begins: what is left of the one before counts no more.</summary>
    internal void Forget()
    {
        Span<byte> dropped = stackalloc byte[512];
        for (int budget = MostBytes; budget > 0 && _own.Receive(dropped) is > 0 and int received; budget -= received)
        {
        }

        _got = _skip = 0;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _own.Dispose();
        Theirs.Dispose();
    }

    private bool TryRead(ref bool changed)
    {
        uint request = BinaryPrimitives.ReadUInt32LittleEndian(_header);
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(4));
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(8));
        if ((flags & VersionMask) != Version || (flags & Reply) != 0 || length > MostPayload)
        {
            return false;
        }

        (_got, _skip) = (0, (int)length);
        changed |= request == ConfigChanged;
        if ((flags & NeedReply) != 0)
        {
            Span<byte> answer = stackalloc byte[VhostUserMessage.HeaderLength + 8];
            BinaryPrimitives.WriteUInt32LittleEndian(answer, request);
            BinaryPrimitives.WriteUInt32LittleEndian(answer[4..], Version | Reply);
            BinaryPrimitives.WriteUInt32LittleEndian(answer[8..], 8);
            BinaryPrimitives.WriteUInt64LittleEndian(answer[12..], request == ConfigChanged ? 0UL : 1);
            _ = _own.Send(answer); // one that reads no answers gets none
        }

        return true;
    }
}
