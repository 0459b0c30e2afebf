using System.Buffers.Binary;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Fs;
using Vmm.Interop;

namespace Vmm.Testing.Virtio;

/// <summary>A message that came: its request, payload and descriptors.</summary>
public sealed record VhostUserCall(uint Request, byte[] Payload, FileDescriptorHandle[] Files);

/// <summary>A vhost-user back end on a thread: it keeps to the protocol as far as its test lets it, and takes notes.</summary>
public sealed class FakeBackEnd : IDisposable
{
    public const uint GetFeatures = 1, SetMemory = 5, SetBase = 10, GetBase = 11, SetKick = 12, SetCall = 13, SetError = 14,
        GetProtocol = 15, SetProtocol = 16, GetQueues = 17, Enable = 18, SetRequests = 21, GetConfig = 24, SetRecord = 32;

    private readonly PacketSocket _messages;
    private readonly Thread _thread;
    private readonly List<VhostUserCall> _calls = [];
    private volatile bool _over;

    private FakeBackEnd(FileDescriptorHandle stream)
    {
        _messages = new PacketSocket(stream);
        _thread = new Thread(Run) { IsBackground = true, Name = "back-end" };
    }

    /// <summary>What it answers in place of the right thing; null: the right thing. An empty answer is none.</summary>
    public Func<uint, byte[]?>? Answer { get; set; }

    /// <summary>Where it stops in each ring.</summary>
    public ushort[] Next { get; } = new ushort[2];

    public ulong Features { get; set; } = VirtioFs.Needs.Features | (1UL << 30);

    /// <summary>What GET_CONFIG is answered with.</summary>
    public byte[] Config { get; set; } = [];

    public VhostUserCall[] Calls
    {
        get
        {
            lock (_calls)
            {
                return [.. _calls];
            }
        }
    }

    /// <summary>One that is connected to a link of a shared folder.</summary>
    public static (FakeBackEnd End, VhostUserLink Link) Connect(VhostUserLinkOptions options, Action<FakeBackEnd>? prepare = null) =>
        Connect(options, VirtioFs.Needs, prepare);

    /// <summary>One that is connected to a link.</summary>
    public static (FakeBackEnd End, VhostUserLink Link) Connect(
        VhostUserLinkOptions options, VhostUserNeeds needs, Action<FakeBackEnd>? prepare = null)
    {
        (FakeBackEnd end, FileDescriptorHandle stream) = Create(prepare);
        try
        {
            return (end, new VhostUserLink(stream, needs, options));
        }
        catch
        {
            end.Dispose();
            throw;
        }
    }

    /// <summary>One, and the stream to it.</summary>
    public static (FakeBackEnd End, FileDescriptorHandle Stream) Create(Action<FakeBackEnd>? prepare = null)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        FakeBackEnd end = new(theirs);
        prepare?.Invoke(end);
        end._thread.Start();
        return (end, new FileDescriptorHandle(own.Detach()));
    }

    /// <summary>Waits for a message that was not there before.</summary>
    public VhostUserCall Wait(uint request, int ring = -1, int count = 1)
    {
        VhostUserCall[] found = [];
        bool Came() => (found = [.. Calls.Where(c => c.Request == request && (ring < 0 || c.Payload[0] == ring))]).Length >= count;
        if (!SpinWait.SpinUntil(Came, 20_000))
        {
            throw new InvalidOperationException($"no request {request}; there were {string.Join(' ', Calls.Select(c => c.Request))}");
        }

        return found[count - 1];
    }

    /// <summary>An answer as it is to be.</summary>
    public static byte[] Reply(uint request, ulong value, uint flags = 5, uint length = 8)
    {
        byte[] message = new byte[20];
        BinaryPrimitives.WriteUInt32LittleEndian(message, request);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(8), length);
        BinaryPrimitives.WriteUInt64LittleEndian(message.AsSpan(12), value);
        return message;
    }

    /// <summary>Says something that nobody asked for.</summary>
    public void Say(byte[] bytes) => _messages.Send(bytes, [], 1000);

    /// <summary>Ends, as a process that dies.</summary>
    public void Dispose()
    {
        _over = true;
        if (_thread != Thread.CurrentThread && (_thread.ThreadState & ThreadState.Unstarted) == 0)
        {
            _thread.Join();
        }

        _messages.Dispose();
        foreach (VhostUserCall call in Calls)
        {
            Array.ForEach(call.Files, file => file.Dispose());
        }
    }

    private void Run()
    {
        while (!_over)
        {
            byte[] header = new byte[12];
            if (!Receive(header, out FileDescriptorHandle[] files))
            {
                return;
            }

            uint request = BinaryPrimitives.ReadUInt32LittleEndian(header);
            uint flags = BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(4));
            byte[] payload = new byte[BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(8))];
            if (payload.Length > 0 && !Receive(payload, out _))
            {
                return;
            }

            lock (_calls)
            {
                _calls.Add(new VhostUserCall(request, payload, files));
            }

            byte[]? answer = Answer?.Invoke(request) ?? request switch
            {
                GetFeatures => Reply(request, Features),
                GetProtocol => Reply(request, ulong.MaxValue),
                GetQueues => Reply(request, 2),
                GetConfig => [.. Reply(request, 0, length: (uint)payload.Length)[..12], .. payload[..12], .. Config],
                GetBase => Reply(request, payload[0] | ((ulong)Next[payload[0]] << 32)),
                _ when (flags & 8) != 0 => Reply(request, 0),
                _ => null,
            };
            if (answer is { Length: > 0 } && !TrySay(answer))
            {
                return;
            }
        }
    }

    // False when the front end has hung up: it may do that at any moment.
    private bool TrySay(byte[] answer)
    {
        try
        {
            Say(answer);
            return true;
        }
        catch (KernelException cause) when (cause.Errno is Errno.EPIPE or Errno.ECONNRESET)
        {
            return false;
        }
    }

    private bool Receive(Span<byte> into, out FileDescriptorHandle[] files)
    {
        files = [];
        for (int got = 0; got < into.Length;)
        {
            switch (_messages.Receive(into[got..], 16, out int length, out FileDescriptorHandle[] came))
            {
                case PacketKind.Packet:
                    got += length;
                    files = [.. files, .. came];
                    break;
                case PacketKind.Empty:
                    Span<PollEntry> one = [new PollEntry(_messages.Handle, read: true)];
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
}
