using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Vmm.Interop;

namespace Vmm.Testing.Virtio;

/// <summary>A piece of a chain in the guest's memory.</summary>
public readonly record struct BackEndPiece(ulong At, int Length, bool Writable);

/// <summary>A chain that a back end took.</summary>
public sealed record BackEndChain(int Ring, ushort Head, IReadOnlyList<BackEndPiece> Pieces);

/// <summary>
/// A vhost-user back end that really serves rings, on a thread: it reads and writes the guest's memory through the files that it was given,
/// and keeps the record of requests in flight as section "Inflight I/O tracking" of vhost-user.rst says. It dies between any two steps when
/// its test wants that. Without event index, as small back ends are.
/// </summary>
public abstract class ServingBackEnd : IDisposable
{
    private const ulong Displacement = 1UL << 46;
    private const ulong ProtocolMq = 1, ProtocolAck = 1 << 3, ProtocolRequests = 1 << 5, ProtocolConfig = 1 << 9, ProtocolRecord = 1 << 12;

    private readonly PacketSocket _socket;
    private readonly Thread _thread;
    private readonly List<FileDescriptorHandle> _files = [];
    private readonly List<(ulong Start, ulong Length, ulong Offset, SafeFileHandle File)> _memory = [];
    private readonly Ring[] _rings;
    private readonly Random _random;
    private SafeFileHandle? _record;
    private int _recordStride;
    private PacketSocket? _requests;
    private ulong _counter;
    private volatile bool _over;

    protected ServingBackEnd(FileDescriptorHandle stream, int rings, int seed)
    {
        _socket = new PacketSocket(stream);
        _rings = [.. Enumerable.Range(0, rings).Select(_ => new Ring())];
        _random = new Random(seed);
        _thread = new Thread(Run) { IsBackground = true, Name = "back-end" };
    }

    /// <summary>Asked between any two steps: true ends it there, as a process that is killed.</summary>
    public Func<bool> Dies { get; set; } = () => false;

    /// <summary>It keeps no record.</summary>
    public bool WithoutRecord { get; init; }

    /// <summary>Chains that it keeps back, to complete them in another order.</summary>
    public int KeepsBack { get; set; }

    /// <summary>What went wrong in it; null: nothing.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>It has rings.</summary>
    public bool Serves => Array.Exists(_rings, ring => ring.Runs);

    protected abstract ulong Features { get; }

    protected virtual byte[] Config => [];

    public void Start() => _thread.Start();

    public void Dispose()
    {
        _over = true;
        _thread.Join();
        GC.SuppressFinalize(this);
    }

    /// <summary>Tells the front end that the configuration changed.</summary>
    public void TellConfigChanged()
    {
        byte[] message = new byte[12];
        BinaryPrimitives.WriteUInt32LittleEndian(message, 2);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(4), 1);
        _requests!.Send(message, [], 1000);
    }

    /// <summary>Carries a chain out: bytes written, or -1 when it waits for something else.</summary>
    protected abstract int Serve(BackEndChain chain);

    protected void Read(ulong at, Span<byte> into)
    {
        (SafeFileHandle file, long offset) = Find(at, into.Length);
        RandomAccess.Read(file, into, offset);
    }

    protected void Write(ulong at, ReadOnlySpan<byte> bytes)
    {
        (SafeFileHandle file, long offset) = Find(at, bytes.Length);
        RandomAccess.Write(file, bytes, offset);
    }

    private (SafeFileHandle File, long Offset) Find(ulong at, int length)
    {
        foreach ((ulong start, ulong size, ulong offset, SafeFileHandle file) in _memory)
        {
            if (at >= start && at + (ulong)length <= start + size)
            {
                return (file, (long)(at - start + offset));
            }
        }

        throw new InvalidOperationException($"{length} bytes at 0x{at:x} are not in the table of memory");
    }

    private void Run()
    {
        try
        {
            while (!_over)
            {
                PollEntry[] entries = [new PollEntry(_socket.Handle, read: true), .. _rings.Select(r => new PollEntry(r.Kick, read: true))];
                _ = Poll.Wait(entries, 2);
                if (entries[0].Readable && !TakeMessage())
                {
                    return;
                }

                for (int i = 0; i < _rings.Length; i++)
                {
                    if (_rings[i].Kick is { } kick && entries[i + 1].Readable)
                    {
                        using SafeFileHandle bell = new(kick.Number, ownsHandle: false);
                        try
                        {
                            _ = RandomAccess.Read(bell, new byte[8], 0);
                        }
                        catch (IOException)
                        {
                            // somebody else took it
                        }
                    }

                    Serve(i);
                }
            }
        }
        catch (EndOfStreamException)
        {
            // killed
        }
#pragma warning disable CA1031 // Told to the test that looks.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Failure = cause;
        }
        finally
        {
            _requests?.Handle.Dispose();
            _files.ForEach(file => file.Dispose());
            _socket.Dispose(); // last: whoever hears that may take the rings
        }
    }

    private void Step()
    {
        if (_over || Dies())
        {
            throw new EndOfStreamException();
        }
    }

    private void Serve(int index)
    {
        Ring ring = _rings[index];
        if (!ring.Runs)
        {
            return;
        }

        ushort available = Word(ring.Available + 2);
        while (ring.Next != available)
        {
            ushort head = Word(ring.Available + 4 + (2UL * (ulong)(ring.Next % ring.Size)));
            Step();
            Note(index, head, inFlight: true);
            Step();
            ring.Next++;
            ring.Pending.Add(ChainOf(index, head));
        }

        while (ring.Pending.Count > 0 && (ring.Pending.Count > KeepsBack || ring.Stops))
        {
            int at = KeepsBack == 0 ? 0 : _random.Next(ring.Pending.Count);
            BackEndChain chain = ring.Pending[at];
            Step();
            int written = Serve(chain);
            if (written < 0)
            {
                return;
            }

            ring.Pending.RemoveAt(at);
            Complete(index, chain.Head, written);
        }
    }

    // In the order of the specification, so that whoever looks after any step knows what was completed.
    private void Complete(int index, ushort head, int written)
    {
        Ring ring = _rings[index];
        Step();
        PutRecord(index, 12, head); // last_batch_head
        Step();
        ushort used = Word(ring.Used + 2);
        Span<byte> entry = stackalloc byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(entry, head);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], (uint)written);
        Write(ring.Used + 4 + (8UL * (ulong)(used % ring.Size)), entry);
        Step();
        PutWord(ring.Used + 2, ++used);
        Step();
        Note(index, head, inFlight: false);
        Step();
        PutRecord(index, 14, used);
        Step();
        if ((Word(ring.Available) & 1) == 0 && ring.Call is { } call)
        {
            using SafeFileHandle bell = new(call.Number, ownsHandle: false);
            RandomAccess.Write(bell, BitConverter.GetBytes(1UL), 0);
        }
    }

    private BackEndChain ChainOf(int index, ushort head)
    {
        Ring ring = _rings[index];
        List<BackEndPiece> pieces = [];
        ulong table = ring.Descriptors;
        ushort at = head;
        Span<byte> d = stackalloc byte[16];
        while (true)
        {
            Read(table + (16UL * at), d);
            ulong address = BinaryPrimitives.ReadUInt64LittleEndian(d);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(d[8..]);
            ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(d[12..]);
            if ((flags & 4) != 0)
            {
                (table, at) = (address, 0);
                continue;
            }

            pieces.Add(new BackEndPiece(address, (int)length, (flags & 2) != 0));
            if ((flags & 1) == 0 || pieces.Count > 1024)
            {
                return new BackEndChain(index, head, pieces);
            }

            at = BinaryPrimitives.ReadUInt16LittleEndian(d[14..]);
        }
    }

    private void Note(int index, ushort head, bool inFlight)
    {
        if (_record is null)
        {
            return;
        }

        long at = ((long)index * _recordStride) + 16 + (16L * head);
        if (inFlight)
        {
            RandomAccess.Write(_record, BitConverter.GetBytes(++_counter), at + 8);
        }

        RandomAccess.Write(_record, [inFlight ? (byte)1 : (byte)0], at);
    }

    private void PutRecord(int index, int field, ushort value)
    {
        if (_record is not null)
        {
            RandomAccess.Write(_record, BitConverter.GetBytes(value), ((long)index * _recordStride) + field);
        }
    }

    /// <summary>What the one before had in flight is taken up again, in the order in which it was taken.</summary>
    private void Resume(int index)
    {
        Ring ring = _rings[index];
        ushort used = Word(ring.Used + 2);
        if (_record is null)
        {
            return;
        }

        byte[] record = new byte[_recordStride];
        RandomAccess.Read(_record, record, (long)index * _recordStride);
        if (BinaryPrimitives.ReadUInt16LittleEndian(record.AsSpan(8)) == 0)
        {
            RandomAccess.Write(_record, BitConverter.GetBytes((ushort)1), ((long)index * _recordStride) + 8);
            PutRecord(index, 14, used);
            return;
        }

        if (BinaryPrimitives.ReadUInt16LittleEndian(record.AsSpan(14)) != used)
        {
            ushort last = BinaryPrimitives.ReadUInt16LittleEndian(record.AsSpan(12));
            record[16 + (16 * last)] = 0;
            Note(index, last, inFlight: false);
            PutRecord(index, 14, used);
        }

        ushort[] heads = [.. Enumerable.Range(0, (_recordStride - 16) / 16).Where(i => i < ring.Size && record[16 + (16 * i)] == 1)
            .OrderBy(i => BinaryPrimitives.ReadUInt64LittleEndian(record.AsSpan(24 + (16 * i)))).Select(i => (ushort)i)];
        ring.Pending.Clear();
        ring.Pending.AddRange(heads.Select(head => ChainOf(index, head)));
        ring.Next = unchecked((ushort)(used + heads.Length));
        foreach (ushort head in heads)
        {
            _counter = Math.Max(_counter, BinaryPrimitives.ReadUInt64LittleEndian(record.AsSpan(24 + (16 * head))));
        }
    }

    private ushort Word(ulong at)
    {
        Span<byte> word = stackalloc byte[2];
        Read(at, word);
        return BinaryPrimitives.ReadUInt16LittleEndian(word);
    }

    private void PutWord(ulong at, ushort value)
    {
        Span<byte> word = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(word, value);
        Write(at, word);
    }

    private bool TakeMessage()
    {
        byte[] header = new byte[12];
        if (!Receive(header, out FileDescriptorHandle[] files))
        {
            return false;
        }

        _files.AddRange(files);
        uint request = BinaryPrimitives.ReadUInt32LittleEndian(header), flags = BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(4));
        byte[] payload = new byte[BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(8))];
        if (payload.Length > 0 && !Receive(payload, out _))
        {
            return false;
        }

        byte[]? answer = Take(request, payload, files);
        if (answer is null && (flags & 8) != 0)
        {
            answer = new byte[8];
        }

        if (answer is not null)
        {
            byte[] message = new byte[12 + answer.Length];
            BinaryPrimitives.WriteUInt32LittleEndian(message, request);
            BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(4), 5);
            BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(8), (uint)answer.Length);
            answer.CopyTo(message, 12);
            _socket.Send(message, [], 1000);
        }

        return true;
    }

    private byte[]? Take(uint request, byte[] payload, FileDescriptorHandle[] files)
    {
        int index = payload.Length >= 8 ? payload[0] : 0;
        uint number = payload.Length >= 8 ? BinaryPrimitives.ReadUInt32LittleEndian(payload.AsSpan(4)) : 0;
        switch (request)
        {
            case 1:
                return BitConverter.GetBytes(Features | (1UL << 30) | (1UL << 32));
            case 15:
                return BitConverter.GetBytes(ProtocolMq | ProtocolAck | (Config.Length > 0 ? ProtocolRequests | ProtocolConfig : 0)
                    | (WithoutRecord ? 0 : ProtocolRecord));
            case 17:
                return BitConverter.GetBytes((ulong)_rings.Length);
            case 21:
                _requests = new PacketSocket(files[0]);
                return null;
            case 24:
                Config.CopyTo(payload, 12);
                return payload;
            case 32:
                int size = BinaryPrimitives.ReadUInt16LittleEndian(payload.AsSpan(18));
                _recordStride = (16 + (16 * size) + 63) / 64 * 64;
                _record = new SafeFileHandle(files[0].Number, ownsHandle: false);
                return null;
            case 5:
                TakeMemory(payload, files);
                return null;
            case 8:
                _rings[index].Size = (ushort)number;
                return null;
            case 10:
                _rings[index].Next = (ushort)number;
                return null;
            case 9:
                ulong Address(int at) => BinaryPrimitives.ReadUInt64LittleEndian(payload.AsSpan(at)) - Displacement;
                (_rings[index].Descriptors, _rings[index].Used, _rings[index].Available) = (Address(8), Address(16), Address(24));
                return null;
            case 12:
                _rings[index].Kick = files[0];
                return null;
            case 13:
                _rings[index].Call = files[0];
                return null;
            case 18:
                _rings[index].Runs = number == 1;
                Resume(index);
                return null;
            case 11:
                return Stop(index);
            default:
                return null;
        }
    }

    private byte[] Stop(int index)
    {
        Ring ring = _rings[index];
        ring.Stops = true;
        Serve(index);
        (ring.Stops, ring.Runs, ring.Kick) = (false, false, null);
        ring.Next -= (ushort)ring.Pending.Count; // empty buffers
        ring.Pending.Clear();
        return BitConverter.GetBytes((uint)index | ((ulong)ring.Next << 32));
    }

    private void TakeMemory(byte[] payload, FileDescriptorHandle[] files)
    {
        _memory.Clear();
        for (int i = 0; i < files.Length; i++)
        {
            ulong At(int field) => BinaryPrimitives.ReadUInt64LittleEndian(payload.AsSpan(8 + (32 * i) + field));
            _memory.Add((At(0), At(8), At(24), new SafeFileHandle(files[i].Number, ownsHandle: false)));
        }
    }

    private bool Receive(Span<byte> into, out FileDescriptorHandle[] files)
    {
        files = [];
        for (int got = 0; got < into.Length;)
        {
            switch (_socket.Receive(into[got..], 16, out int length, out FileDescriptorHandle[] came))
            {
                case PacketKind.Packet:
                    got += length;
                    files = [.. files, .. came];
                    break;
                case PacketKind.Empty:
                    Span<PollEntry> one = [new PollEntry(_socket.Handle, read: true)];
                    _ = Poll.Wait(one, 20);
                    break;
                default:
                    return false;
            }

            if (_over)
            {
                return false;
            }
        }

        return true;
    }

    private sealed class Ring
    {
        public ushort Size { get; set; }

        public ulong Descriptors { get; set; }

        public ulong Available { get; set; }

        public ulong Used { get; set; }

        public ushort Next { get; set; }

        public bool Runs { get; set; }

        public bool Stops { get; set; }

        public FileDescriptorHandle? Kick { get; set; }

        public FileDescriptorHandle? Call { get; set; }

        public List<BackEndChain> Pending { get; } = [];
    }
}

/// <summary>A disk in memory, which outlives the back ends that serve it.</summary>
public sealed class BackEndDisk(int bytes)
{
    public byte[] Content { get; } = new byte[bytes];

    public ulong Sectors { get; set; } = (ulong)bytes / 512;

    /// <summary>Requests that were carried out, also twice.</summary>
    public int Served { get; set; }
}

/// <summary>A disk served over vhost-user.</summary>
public sealed class BlkBackEnd : ServingBackEnd
{
    private readonly BackEndDisk _disk;
    private readonly int _queues;

    public BlkBackEnd(FileDescriptorHandle stream, BackEndDisk disk, int queues = 1, int seed = 1) : base(stream, queues, seed) =>
        (_disk, _queues) = (disk, queues);

    // SEG_MAX, BLK_SIZE, FLUSH, MQ, DISCARD, WRITE_ZEROES, INDIRECT_DESC
    protected override ulong Features =>
        (1 << 2) | (1 << 6) | (1 << 9) | (1 << 12) | (1 << 13) | (1 << 14) | (1UL << 28);

    protected override byte[] Config
    {
        get
        {
            byte[] config = new byte[60];
            BinaryPrimitives.WriteUInt64LittleEndian(config, _disk.Sectors);
            BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(12), 126);
            BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(20), 512);
            BinaryPrimitives.WriteUInt16LittleEndian(config.AsSpan(34), (ushort)_queues);
            foreach (int at in new[] { 36, 48 })
            {
                BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(at), 1 << 15);
                BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(at + 4), 1);
            }

            return config;
        }
    }

    protected override int Serve(BackEndChain chain)
    {
        _disk.Served++;
        List<byte> readable = [];
        foreach (BackEndPiece piece in chain.Pieces.Where(p => !p.Writable))
        {
            byte[] bytes = new byte[piece.Length];
            Read(piece.At, bytes);
            readable.AddRange(bytes);
        }

        byte[] request = [.. readable];
        BackEndPiece[] writable = [.. chain.Pieces.Where(p => p.Writable)];
        uint type = BinaryPrimitives.ReadUInt32LittleEndian(request);
        ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(request.AsSpan(8));
        int room = writable.Sum(p => p.Length) - 1;
        byte[]? answer = Carry(type, sector, request.AsSpan(16), room);
        byte status = answer is null ? type is 0 or 1 or 4 or 8 or 11 or 13 ? (byte)1 : (byte)2 : (byte)0;
        byte[] all = [.. (answer ?? []).Concat(new byte[Math.Max(0, room - (answer?.Length ?? 0))]).Take(room), status];
        int at = 0;
        foreach (BackEndPiece piece in writable)
        {
            Write(piece.At, all.AsSpan(at, piece.Length));
            at += piece.Length;
        }

        return all.Length;
    }

    // Null: an error.
    private byte[]? Carry(uint type, ulong sector, ReadOnlySpan<byte> data, int room)
    {
        switch (type)
        {
            case 0:
                return Fits(sector, room) ? _disk.Content.AsSpan((int)sector * 512, room).ToArray() : null;
            case 1 when Fits(sector, data.Length):
                data.CopyTo(_disk.Content.AsSpan((int)sector * 512));
                return [];
            case 4:
                return [];
            case 8:
                return [.. "back-end"u8];
            case 11 or 13 when data.Length == 16:
                ulong first = BinaryPrimitives.ReadUInt64LittleEndian(data);
                int length = (int)BinaryPrimitives.ReadUInt32LittleEndian(data[8..]) * 512;
                if (!Fits(first, length))
                {
                    return null;
                }

                _disk.Content.AsSpan((int)first * 512, length).Clear();
                return [];
            default:
                return null;
        }
    }

    private bool Fits(ulong sector, int length) =>
        length >= 0 && length % 512 == 0 && sector <= _disk.Sectors && (ulong)length / 512 <= _disk.Sectors - sector;
}

/// <summary>A cable: what the guest sends comes out here, and what is put in here the guest receives.</summary>
public sealed class NetBackEnd : ServingBackEnd
{
    private const int Header = 12; // struct virtio_net_hdr_v1

    private readonly System.Collections.Concurrent.ConcurrentQueue<byte[]> _toGuest = new();

    public NetBackEnd(FileDescriptorHandle stream, int seed = 1) : base(stream, 2, seed)
    {
    }

    /// <summary>Frames of the guest.</summary>
    public System.Collections.Concurrent.BlockingCollection<byte[]> FromGuest { get; } = [];

    protected override ulong Features => 1UL << 15; // MRG_RXBUF

    /// <summary>A frame for the guest.</summary>
    public void Send(byte[] frame) => _toGuest.Enqueue(frame);

    protected override int Serve(BackEndChain chain)
    {
        if (chain.Ring == 1)
        {
            List<byte> frame = [];
            foreach (BackEndPiece piece in chain.Pieces)
            {
                byte[] bytes = new byte[piece.Length];
                Read(piece.At, bytes);
                frame.AddRange(bytes);
            }

            FromGuest.Add([.. frame.Skip(Header)]);
            return 0;
        }

        if (!_toGuest.TryDequeue(out byte[]? next))
        {
            return -1;
        }

        byte[] whole = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, .. next]; // in one buffer
        Write(chain.Pieces[0].At, whole);
        return whole.Length;
    }
}
