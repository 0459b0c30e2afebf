using Vmm.Interop;

namespace Vmm.Worker;

/// <summary>
/// Lets the guest's vsock reach ports of the host: a confined worker may not make sockets, so it asks vmmd. The device's thread waits for
/// the answer, but never long; without a vmmd the guest is refused at once.
/// </summary>
/// <param name="ask">Sends the wish; false when there is nobody to ask.</param>
/// <param name="patience">How long an answer may take.</param>
internal sealed class VsockDialer(Func<long, uint, bool> ask, TimeSpan patience)
{
    private readonly Lock _gate = new();
    private readonly Dictionary<long, Wish> _wishes = [];
    private long _last;

    /// <summary>Connects, or answers null. Any thread but that of the control channel.</summary>
    internal UnixStream? Dial(uint port)
    {
        using Wish wish = new();
        long number;
        lock (_gate)
        {
            number = ++_last;
            _wishes.Add(number, wish);
        }

        if (ask(number, port))
        {
            wish.Answered.Wait(patience);
        }

        lock (_gate)
        {
            _wishes.Remove(number);
            return wish.Stream;
        }
    }

    /// <summary>An answer; one that nobody waits for any more is closed.</summary>
    internal void Answer(long number, FileDescriptorHandle? stream)
    {
        lock (_gate)
        {
            if (!_wishes.Remove(number, out Wish? wish))
            {
                stream?.Dispose();
                return;
            }

            wish.Stream = stream is null ? null : UnixStream.FromDescriptor(stream);
            wish.Answered.Set();
        }
    }

    private sealed class Wish : IDisposable
    {
        internal ManualResetEventSlim Answered { get; } = new();

        internal UnixStream? Stream { get; set; }

        public void Dispose() => Answered.Dispose();
    }
}
