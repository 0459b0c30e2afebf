using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Frames over a byte stream, each behind its length of 4 bytes, big-endian: what passt and the stream sockets of QEMU speak. The far side
/// is not trusted. A length that no frame has ends the stream, as its end does; the queue then waits for another one. One thread, but for
/// <see cref="Offer"/>.
/// </summary>
/// <param name="stream">The stream; owned from here on.</param>
/// <param name="lost">Called when the stream ended, with the reason; must not block.</param>
internal sealed class FrameStream(UnixStream stream, Action<string> lost) : INetQueue, IDisposable
{
    /// <summary>An Ethernet header.</summary>
    internal const int LeastFrame = 14;

    /// <summary>An Ethernet header and the largest IP packet.</summary>
    internal const int MostFrame = 14 + 65535;

    private const int Prefix = 4, Room = 256 << 10, MostVectors = 1024, MostBatch = 64;

    private static ReadOnlySpan<byte> NoHeader => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]; // a whole frame with whole checksums

    private readonly NativeArray<byte> _in = new(Room);
    private readonly NativeArray<byte> _unsent = new(Prefix + MostFrame); // the end of a frame that went out in part
    private readonly NativeArray<byte> _prefixes = new(Prefix * MostBatch);
    private readonly NativeArray<IoVector> _vectors = new(MostVectors);
    private UnixStream _stream = stream;
    private UnixStream? _offered;
    private bool _ended, _disposed;
    private int _begin, _end; // what was received and not read, in _in
    private int _unsentBegin, _unsentEnd;

    /// <inheritdoc/>
    public FileDescriptorHandle Handle => _stream;

    /// <inheritdoc/>
    public bool HasUnsent => _unsentBegin < _unsentEnd;

    /// <summary>Another stream for one that ended; owned from here on. Any thread.</summary>
    internal void Offer(UnixStream stream)
    {
        Interlocked.Exchange(ref _offered, stream)?.Dispose();
        if (Volatile.Read(ref _disposed))
        {
            Interlocked.Exchange(ref _offered, null)?.Dispose();
        }
    }

    /// <inheritdoc/>
    public bool TryReturn()
    {
        if (!_ended || Interlocked.Exchange(ref _offered, null) is not { } next)
        {
            return false;
        }

        _stream.Dispose();
        _stream = next;
        _ended = false;
        _begin = _end = _unsentBegin = _unsentEnd = 0;
        return true;
    }

    /// <inheritdoc/>
    public int Read(Span<TapFrame> frames)
    {
        for (int i = 0; i < frames.Length; i++)
        {
            int errno = Next(out int length);
            if (errno != 0)
            {
                frames[i].Result = -errno;
                return i;
            }

            frames[i].Result = Place(_in.Span.Slice(_begin + Prefix, length), frames[i]);
            _begin += Prefix + length;
            if (frames[i].Result > frames[i].Room)
            {
                return i + 1;
            }
        }

        return frames.Length;
    }

    /// <inheritdoc/>
    public int Write(Span<TapFrame> frames)
    {
        int done = 0;
        while (done < frames.Length && !_ended)
        {
            if (HasUnsent)
            {
                frames[done].Result = -Errno.EAGAIN;
                return done;
            }

            int batch = Gather(frames[done..], out int vectors);
            if (batch == 0)
            {
                frames[done++].Result = -Errno.EMSGSIZE; // no frame, or in more pieces than one call takes
                continue;
            }

            int sent = Send(frames.Slice(done, batch), vectors);
            done += sent;
            if (sent == 0 && !_ended)
            {
                frames[done].Result = -Errno.EAGAIN;
                return done;
            }
        }

        for (; done < frames.Length; done++)
        {
            frames[done].Result = -Errno.EPIPE;
        }

        return done;
    }

    /// <inheritdoc/>
    public void Flush()
    {
        int sent = _stream.Send(_unsent.Span[_unsentBegin.._unsentEnd]);
        _unsentBegin += Math.Max(sent, 0);
        if (sent < 0)
        {
            End("it reads no more");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Volatile.Write(ref _disposed, true);
        Interlocked.Exchange(ref _offered, null)?.Dispose();
        _stream.Dispose();
        _in.Dispose();
        _unsent.Dispose();
        _prefixes.Dispose();
        _vectors.Dispose();
    }

    /// <summary>Header and frame into the vectors, as far as they have room; the length of both.</summary>
    private static long Place(ReadOnlySpan<byte> frame, in TapFrame into)
    {
        ReadOnlySpan<byte> header = NoHeader;
        long length = header.Length + frame.Length;
        foreach (IoVector vector in HostSpan.Vectors(into.Vectors, into.Count))
        {
            Span<byte> room = HostSpan.Bytes(vector.Base, (int)Math.Min(vector.Length, (nuint)length));
            int part = Math.Min(header.Length, room.Length);
            header[..part].CopyTo(room);
            header = header[part..];
            room = room[part..];
            part = Math.Min(frame.Length, room.Length);
            frame[..part].CopyTo(room);
            frame = frame[part..];
        }

        return length;
    }

    /// <summary>Makes the next frame lie whole at <see cref="_begin"/>: 0, or the errno of why not.</summary>
    private int Next(out int length)
    {
        length = 0;
        while (!_ended)
        {
            int have = _end - _begin;
            if (have >= Prefix)
            {
                uint said = BinaryPrimitives.ReadUInt32BigEndian(_in.Span[_begin..]);
                if (said is < LeastFrame or > MostFrame)
                {
                    End($"it announced a frame of {said} bytes");
                    break;
                }

                if (have - Prefix >= said)
                {
                    length = (int)said;
                    return 0;
                }
            }

            if (_begin > 0 && (have == 0 || Room - _begin < Prefix + MostFrame))
            {
                _in.Span[_begin.._end].CopyTo(_in.Span);
                (_begin, _end) = (0, have);
            }

            int received = _stream.Receive(_in.Span[_end..]);
            if (received < 0)
            {
                return Errno.EAGAIN;
            }

            _end += received;
            if (received == 0)
            {
                End("it closed the connection");
            }
        }

        return Errno.EBADFD;
    }

    /// <summary>As many frames as go in one call, with their lengths; how many, and in how many vectors.</summary>
    private int Gather(ReadOnlySpan<TapFrame> frames, out int vectors)
    {
        vectors = 0;
        int most = Math.Min(frames.Length, MostBatch), taken = 0;
        for (; taken < most && vectors < MostVectors; taken++)
        {
            int at = vectors + 1;
            if (!TryPut(frames[taken], ref at, out int length))
            {
                break;
            }

            BinaryPrimitives.WriteInt32BigEndian(PrefixOf(taken), length);
            _vectors.Span[vectors] = new IoVector(_prefixes.AddressOf(Prefix * taken), Prefix);
            vectors = at;
        }

        return taken;
    }

    /// <summary>The pieces of a frame without its header, from vector <paramref name="at"/> on.</summary>
    private bool TryPut(in TapFrame frame, ref int at, out int length)
    {
        Span<IoVector> all = _vectors.Span;
        nuint header = TapQueue.HeaderLength, bytes = 0;
        length = 0;
        foreach (IoVector vector in HostSpan.Vectors(frame.Vectors, frame.Count))
        {
            nuint skipped = Math.Min(header, vector.Length), rest = vector.Length - skipped;
            header -= skipped;
            bytes += rest;
            if (rest > 0 && (at == all.Length || bytes > MostFrame))
            {
                return false;
            }

            if (rest > 0)
            {
                all[at++] = new IoVector(vector.Base + (nint)skipped, rest);
            }
        }

        length = (int)bytes;
        return length >= LeastFrame;
    }

    /// <summary>Sends what was gathered. How many frames are done with: of the last one, a part may wait here.</summary>
    private int Send(Span<TapFrame> frames, int vectors)
    {
        long sent = _stream.Send(_vectors.AddressOf(0), vectors), left = sent;
        if (sent < 0)
        {
            End("it reads no more");
            return 0;
        }

        int done = 0;
        while (left > 0)
        {
            int length = BinaryPrimitives.ReadInt32BigEndian(PrefixOf(done));
            int rest = (int)Math.Max(0, Prefix + length - left);
            if (rest > 0)
            {
                Keep(sent, rest);
            }

            left -= Prefix + length - rest;
            frames[done++].Result = TapQueue.HeaderLength + length;
        }

        return done;
    }

    /// <summary>Keeps so many of the gathered bytes, which come behind those that were sent.</summary>
    private void Keep(long sent, int bytes)
    {
        Span<byte> to = _unsent.Span[..bytes];
        for (int i = 0; !to.IsEmpty; i++)
        {
            IoVector vector = _vectors.Span[i];
            long skipped = Math.Min(sent, (long)vector.Length);
            sent -= skipped;
            int part = (int)Math.Min((long)vector.Length - skipped, to.Length);
            HostSpan.Bytes(vector.Base + (nint)skipped, part).CopyTo(to);
            to = to[part..];
        }

        (_unsentBegin, _unsentEnd) = (0, bytes);
    }

    private Span<byte> PrefixOf(int frame) => _prefixes.Span.Slice(Prefix * frame, Prefix);

    // The descriptor stays open: a poll may still wait on it, and ends by this.
    private void End(string why)
    {
        _ended = true;
        _begin = _end = _unsentBegin = _unsentEnd = 0;
        _stream.Shutdown();
        lost(why);
    }
}
