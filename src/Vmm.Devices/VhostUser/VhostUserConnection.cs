using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.VhostUser;

/// <summary>What a back end did that nobody asked.</summary>
internal enum BackEndSign
{
    /// <summary>Nothing.</summary>
    Quiet,

    /// <summary>It sent something, which it may not.</summary>
    Spoke,

    /// <summary>It closed its socket: its process is gone, or serves nothing any more.</summary>
    Ended,
}

/// <summary>
/// Requests and answers over one connection to a back end. Each has its deadline. After the first that fails the connection is of no use
/// any more, and every further request fails at once. One thread at a time, but for <see cref="Abandon"/>.
/// </summary>
internal sealed class VhostUserConnection : IDisposable
{
    private readonly UnixStream _stream;
    private readonly byte[] _message = new byte[VhostUserMessage.HeaderLength + VhostUserMessage.MostPayload];
    private bool _failed;

    /// <summary>Takes ownership of a connected stream.</summary>
    internal VhostUserConnection(UnixStream stream) => _stream = stream;

    /// <summary>The socket, for polling: readable without a request under way means that the back end is gone, or lies.</summary>
    internal FileDescriptorHandle Handle => _stream;

    /// <summary>REPLY_ACK was negotiated: requests without an answer of their own are acknowledged.</summary>
    internal bool Acknowledges { get; set; }

    /// <summary>What the far side did while nothing was asked; what it said is dropped.</summary>
    internal BackEndSign Look()
    {
        Span<byte> dropped = stackalloc byte[256];
        BackEndSign sign = BackEndSign.Quiet;
        for (int i = 0; i < 16; i++)
        {
            int received = _stream.Receive(dropped);
            if (received <= 0)
            {
                return received == 0 ? BackEndSign.Ended : sign;
            }

            sign = BackEndSign.Spoke;
        }

        return sign;
    }

    /// <summary>A request that is answered by a number.</summary>
    /// <exception cref="VhostUserException">No such answer in time.</exception>
    internal ulong Ask(VhostUserRequest request, ReadOnlySpan<byte> payload, TimeSpan patience)
    {
        Span<byte> answer = stackalloc byte[VhostUserMessage.NumberLength];
        Ask(request, payload, answer, patience);
        return BinaryPrimitives.ReadUInt64LittleEndian(answer);
    }

    /// <summary>A request that is answered by that many bytes.</summary>
    /// <exception cref="VhostUserException">No such answer in time.</exception>
    internal void Ask(VhostUserRequest request, ReadOnlySpan<byte> payload, Span<byte> answer, TimeSpan patience)
    {
        Send(request, payload, [], needReply: false, patience);
        Receive(request, answer, patience);
    }

    /// <summary>A request without an answer of its own, carried out when this returns if the back end acknowledges.</summary>
    /// <exception cref="VhostUserException">Refused, or not acknowledged in time.</exception>
    internal void Tell(
        VhostUserRequest request, ReadOnlySpan<byte> payload, ReadOnlySpan<FileDescriptorHandle> descriptors, TimeSpan patience)
    {
        Send(request, payload, descriptors, Acknowledges, patience);
        if (!Acknowledges)
        {
            return;
        }

        Span<byte> answer = stackalloc byte[VhostUserMessage.NumberLength];
        Receive(request, answer, patience);
        if (BinaryPrimitives.ReadUInt64LittleEndian(answer) is not 0 and ulong error)
        {
            throw Fail($"it refuses {request} (answer {error})");
        }
    }

    /// <summary>Says goodbye: a back end ends when it hears that. What it sends is still seen. Any thread.</summary>
    internal void Abandon() => _stream.EndSend();

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();

    private void Send(
        VhostUserRequest request, ReadOnlySpan<byte> payload, ReadOnlySpan<FileDescriptorHandle> descriptors, bool needReply,
        TimeSpan patience)
    {
        if (_failed)
        {
            throw new VhostUserException("the connection failed before");
        }

        int length = VhostUserMessage.Write(_message, request, needReply, payload);
        try
        {
            _stream.SendWhole(_message.AsSpan(0, length), descriptors, (int)patience.TotalMilliseconds);
        }
        catch (KernelException cause)
        {
            throw Fail(cause.Errno is Errno.EPIPE or Errno.ECONNRESET ? "it ended" : $"{request}: {cause.Message}");
        }
    }

    private void Receive(VhostUserRequest request, Span<byte> answer, TimeSpan patience)
    {
        long end = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        Span<byte> header = stackalloc byte[VhostUserMessage.HeaderLength];
        ReceiveAll(header, request, end, patience);
        if (!VhostUserMessage.TryReadAnswer(header, request, answer.Length, out string problem))
        {
            throw Fail(problem);
        }

        ReceiveAll(answer, request, end, patience);
    }

    // Descriptors that it sends along have no room here, so the kernel closes them (unix(7)).
    private void ReceiveAll(Span<byte> into, VhostUserRequest request, long end, TimeSpan patience)
    {
        for (int got = 0; got < into.Length;)
        {
            int received = _stream.Receive(into[got..]);
            if (received == 0)
            {
                throw Fail("it ended");
            }

            if (received > 0)
            {
                got += received;
                continue;
            }

            long left = end - Environment.TickCount64;
            if (left <= 0)
            {
                throw Fail($"it does not answer {request} within {patience.TotalSeconds:0.#} s");
            }

            Span<PollEntry> one = [new PollEntry(_stream, read: true)];
            _ = Poll.Wait(one, (int)left);
        }
    }

    private VhostUserException Fail(string problem)
    {
        _failed = true;
        return new VhostUserException(problem);
    }
}
