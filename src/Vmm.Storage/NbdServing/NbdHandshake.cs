using System.Buffers.Binary;

namespace Vmm.Storage.NbdServing;

/// <summary>Where a negotiation is.</summary>
internal enum NbdHandshakeState
{
    /// <summary>The client's flags come.</summary>
    Flags,

    /// <summary>Options come.</summary>
    Options,

    /// <summary>The client has what it wanted: requests come.</summary>
    Done,

    /// <summary>The connection is over: the client said so, or what it says is not the protocol.</summary>
    Over,
}

/// <summary>
/// The server's side of fixed newstyle negotiation, without a socket: bytes of the client come in, bytes for it go out. Its memory is
/// bounded whatever the client says, and so is the number of options that it may say.
/// </summary>
internal sealed class NbdHandshake
{
    /// <summary>Most bytes that wait for the client at once: the answers to one option.</summary>
    internal const int MostOutput = 3 * NbdWire.OptionReplyBytes + 2 * NbdWire.MostText;

    private const int MostOptions = 64;
    private const int MostData = NbdWire.MostText + 64; // of one option: a name, and what is asked of it

    private readonly NbdServed _served;
    private readonly byte[] _input = new byte[NbdWire.OptionBytes + MostData];
    private readonly byte[] _output = new byte[MostOutput];
    private int _inputCount, _outputCount, _options;
    private uint _tooLong; // bytes of an option still to be dropped
    private bool _noZeroes;

    /// <summary>The server speaks first.</summary>
    internal NbdHandshake(NbdServed served)
    {
        _served = served;
        BinaryPrimitives.WriteUInt64BigEndian(_output, NbdWire.Magic);
        BinaryPrimitives.WriteUInt64BigEndian(_output.AsSpan(8), NbdWire.OptionMagic);
        BinaryPrimitives.WriteUInt16BigEndian(_output.AsSpan(16), NbdWire.FixedNewstyle | NbdWire.NoZeroes);
        _outputCount = 18;
    }

    /// <summary>Where it is.</summary>
    internal NbdHandshakeState State { get; private set; } = NbdHandshakeState.Flags;

    /// <summary>What the client is to be sent.</summary>
    internal ReadOnlySpan<byte> Output => _output.AsSpan(0, _outputCount);

    /// <summary>So much of it was sent.</summary>
    internal void Sent(int count)
    {
        _output.AsSpan(count, _outputCount - count).CopyTo(_output);
        _outputCount -= count;
    }

    /// <summary>
    /// Takes what the client says; how much of it was taken. It stops where an answer has to be sent first, and where requests begin.
    /// </summary>
    internal int Take(ReadOnlySpan<byte> bytes)
    {
        int taken = 0;
        while (taken < bytes.Length && _outputCount == 0 && State is NbdHandshakeState.Flags or NbdHandshakeState.Options)
        {
            taken += TakeSome(bytes[taken..]);
        }

        return taken;
    }

    private int TakeSome(ReadOnlySpan<byte> bytes)
    {
        if (_tooLong > 0)
        {
            int dropped = (int)Math.Min(_tooLong, (uint)bytes.Length);
            _tooLong -= (uint)dropped;
            if (_tooLong == 0)
            {
                Reply(NbdWire.ReplyTooBig, []);
                _inputCount = 0;
            }

            return dropped;
        }

        int wanted = Wanted, taken = Math.Min(wanted - _inputCount, bytes.Length);
        bytes[..taken].CopyTo(_input.AsSpan(_inputCount));
        _inputCount += taken;
        if (_inputCount == wanted)
        {
            Complete();
        }

        return taken;
    }

    // Bytes that what comes now has altogether, as far as is known: of an option first its head.
    private int Wanted => State == NbdHandshakeState.Flags ? 4
        : _inputCount < NbdWire.OptionBytes ? NbdWire.OptionBytes : NbdWire.OptionBytes + (int)DataLength;

    private NbdOption Option => (NbdOption)BinaryPrimitives.ReadUInt32BigEndian(_input.AsSpan(8));

    private uint DataLength => BinaryPrimitives.ReadUInt32BigEndian(_input.AsSpan(12));

    private void Complete()
    {
        if (State == NbdHandshakeState.Flags)
        {
            uint flags = BinaryPrimitives.ReadUInt32BigEndian(_input);
            _noZeroes = (flags & NbdWire.NoZeroes) != 0;
            _inputCount = 0;
            // A client without fixed newstyle cannot be told that an option is refused; none is that old any more.
            Move((flags & ~(uint)(NbdWire.FixedNewstyle | NbdWire.NoZeroes)) == 0 && (flags & NbdWire.FixedNewstyle) != 0
                ? NbdHandshakeState.Options : NbdHandshakeState.Over);
            return;
        }

        if (_inputCount == NbdWire.OptionBytes && (!TakeHead() || DataLength > 0))
        {
            return;
        }

        Answer(_input.AsSpan(NbdWire.OptionBytes, (int)DataLength));
        _inputCount = 0;
    }

    // The head of an option is there. False when its data is not to be looked at.
    private bool TakeHead()
    {
        if (BinaryPrimitives.ReadUInt64BigEndian(_input) != NbdWire.OptionMagic || ++_options > MostOptions)
        {
            Move(NbdHandshakeState.Over);
            return false;
        }

        if (DataLength > MostData)
        {
            _tooLong = DataLength;
            return false;
        }

        return true;
    }

    private void Answer(ReadOnlySpan<byte> data)
    {
        switch (Option)
        {
            case NbdOption.ExportName:
                AnswerOldWay(data);
                break;
            case NbdOption.Abort:
                Reply(NbdWire.ReplyAck, []);
                Move(NbdHandshakeState.Over);
                break;
            case NbdOption.List when data.IsEmpty:
                ReplyName();
                Reply(NbdWire.ReplyAck, []);
                break;
            case NbdOption.List:
                Reply(NbdWire.ReplyInvalid, []);
                break;
            case NbdOption.Info or NbdOption.Go:
                AnswerGo(data);
                break;
            default:
                Reply(NbdWire.ReplyUnsupported, []); // TLS and structured replies, too: a server on a unix socket of one client
                break;
        }
    }

    // NBD_OPT_EXPORT_NAME has no way to refuse.
    private void AnswerOldWay(ReadOnlySpan<byte> name)
    {
        if (!_served.IsNamed(name))
        {
            Move(NbdHandshakeState.Over);
            return;
        }

        int length = _noZeroes ? 10 : 134;
        Span<byte> into = Append(length);
        into.Clear();
        _served.WriteShort(into);
        Move(NbdHandshakeState.Done);
    }

    private void AnswerGo(ReadOnlySpan<byte> data)
    {
        uint nameLength = data.Length >= 6 ? BinaryPrimitives.ReadUInt32BigEndian(data) : uint.MaxValue;
        if (nameLength > data.Length - 6)
        {
            Reply(NbdWire.ReplyInvalid, []);
            return;
        }

        ReadOnlySpan<byte> asked = data[(4 + (int)nameLength)..];
        int count = BinaryPrimitives.ReadUInt16BigEndian(asked);
        if (asked.Length != 2 + (2 * count))
        {
            Reply(NbdWire.ReplyInvalid, []);
            return;
        }

        if (!_served.IsNamed(data.Slice(4, (int)nameLength)))
        {
            Reply(NbdWire.ReplyUnknown, []);
            return;
        }

        bool wantsName = false;
        for (int i = 0; i < count; i++)
        {
            wantsName |= BinaryPrimitives.ReadUInt16BigEndian(asked[(2 + (2 * i))..]) == NbdWire.InfoName;
        }

        ReplyExport(wantsName);
        Reply(NbdWire.ReplyAck, []);
        if (Option == NbdOption.Go)
        {
            Move(NbdHandshakeState.Done);
        }
    }

    private void ReplyExport(bool withName)
    {
        Span<byte> export = stackalloc byte[12], blocks = stackalloc byte[14];
        BinaryPrimitives.WriteUInt16BigEndian(export, NbdWire.InfoExport);
        _served.WriteShort(export[2..]);
        Reply(NbdWire.ReplyInfo, export);
        BinaryPrimitives.WriteUInt16BigEndian(blocks, NbdWire.InfoBlockSize);
        NbdServed.WriteBlocks(blocks[2..]);
        Reply(NbdWire.ReplyInfo, blocks);
        if (withName)
        {
            Span<byte> into = ReplyHead(NbdWire.ReplyInfo, 2 + _served.Name.Length);
            BinaryPrimitives.WriteUInt16BigEndian(into, NbdWire.InfoName);
            _served.Name.CopyTo(into[2..]);
        }
    }

    private void ReplyName()
    {
        Span<byte> into = ReplyHead(NbdWire.ReplyServer, 4 + _served.Name.Length);
        BinaryPrimitives.WriteInt32BigEndian(into, _served.Name.Length);
        _served.Name.CopyTo(into[4..]);
    }

    private void Reply(uint kind, ReadOnlySpan<byte> data) => data.CopyTo(ReplyHead(kind, data.Length));

    private Span<byte> ReplyHead(uint kind, int length)
    {
        Span<byte> into = Append(NbdWire.OptionReplyBytes + length);
        BinaryPrimitives.WriteUInt64BigEndian(into, NbdWire.OptionReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(into[8..], (uint)Option);
        BinaryPrimitives.WriteUInt32BigEndian(into[12..], kind);
        BinaryPrimitives.WriteInt32BigEndian(into[16..], length);
        return into[NbdWire.OptionReplyBytes..];
    }

    private Span<byte> Append(int length)
    {
        Span<byte> into = _output.AsSpan(_outputCount, length);
        _outputCount += length;
        return into;
    }

    private void Move(NbdHandshakeState to)
    {
        bool isMove = (State, to) switch
        {
            (NbdHandshakeState.Flags, NbdHandshakeState.Options) => true,
            (NbdHandshakeState.Options, NbdHandshakeState.Done) => true,
            (not NbdHandshakeState.Over, NbdHandshakeState.Over) => true,
            _ => false,
        };
        State = isMove ? to : throw new InvalidOperationException($"A negotiation that is {State} cannot become {to}.");
    }
}
