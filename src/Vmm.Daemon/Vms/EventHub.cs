using System.Threading.Channels;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>
/// What happened, for whoever listens: numbered, the last thousand kept. A listener that does not keep up is let go, it may come back and
/// ask for what it missed.
/// </summary>
public sealed class EventHub
{
    /// <summary>
    /// Events that are kept; those of one VM that are, so that one that makes many does not push out those of the others; what a listener
    /// may owe.
    /// </summary>
    private const int Kept = 1000, KeptOfOne = 250, Backlog = 256;

    private readonly Lock _gate = new();
    private readonly LinkedList<DaemonEvent> _ring = [];
    private readonly Dictionary<string, int> _count = new(StringComparer.Ordinal);
    private readonly HashSet<Channel<DaemonEvent>> _listeners = [];
    private long _last, _dropped; // numbers: of the last event, and the highest of those that are not kept any more

    /// <summary>Tells everybody.</summary>
    internal void Publish(
        string kind, string vm, VmState? state = null, WorkerExit? exit = null, string? message = null, JobInfo? job = null)
    {
        lock (_gate)
        {
            DaemonEvent what = new(++_last, DateTimeOffset.UtcNow, kind, vm, state, exit, message, job);
            _ring.AddLast(what);
            _count[vm] = _count.GetValueOrDefault(vm) + 1;
            if (_count[vm] > KeptOfOne)
            {
                Drop(FirstOf(vm));
            }
            else if (_ring.Count > Kept)
            {
                Drop(_ring.First!);
            }

            _listeners.RemoveWhere(listener => !listener.Writer.TryWrite(what) && listener.Writer.TryComplete());
        }
    }

    /// <summary>What is kept about one VM, oldest first.</summary>
    internal IReadOnlyList<DaemonEvent> Of(string vm)
    {
        lock (_gate)
        {
            return [.. _ring.Where(e => string.Equals(e.Vm, vm, StringComparison.Ordinal))];
        }
    }

    /// <summary>Listens from the event behind <paramref name="after"/> on; null is from now on. Dispose to stop.</summary>
    internal Listening Listen(long? after)
    {
        lock (_gate)
        {
            Channel<DaemonEvent> channel = Channel.CreateBounded<DaemonEvent>(
                new BoundedChannelOptions(Backlog) { SingleReader = true, FullMode = BoundedChannelFullMode.Wait });
            List<DaemonEvent> missed = after is { } known ? [.. _ring.Where(e => e.Id > known || known > _last)] : [];
            // A number of an earlier daemon, or one too old: the listener has to look at the VMs themselves.
            bool gap = after is { } asked && (asked > _last || asked < _dropped);
            _listeners.Add(channel);
            return new Listening(this, channel, missed, gap);
        }
    }

    private LinkedListNode<DaemonEvent> FirstOf(string vm)
    {
        LinkedListNode<DaemonEvent> node = _ring.First!;
        while (!string.Equals(node.Value.Vm, vm, StringComparison.Ordinal))
        {
            node = node.Next!;
        }

        return node;
    }

    private void Drop(LinkedListNode<DaemonEvent> node)
    {
        _ring.Remove(node);
        _dropped = Math.Max(_dropped, node.Value.Id);
        string vm = node.Value.Vm;
        if (--_count[vm] == 0)
        {
            _count.Remove(vm);
        }
    }

    /// <summary>One listener.</summary>
    internal sealed class Listening(EventHub hub, Channel<DaemonEvent> channel, IReadOnlyList<DaemonEvent> missed, bool gap) : IDisposable
    {
        /// <summary>What is kept of what happened meanwhile.</summary>
        internal IReadOnlyList<DaemonEvent> Missed => missed;

        /// <summary>There was more than is kept.</summary>
        internal bool Gap => gap;

        /// <summary>What happens from now on; completes when the listener was too slow.</summary>
        internal ChannelReader<DaemonEvent> Events => channel.Reader;

        public void Dispose()
        {
            lock (hub._gate)
            {
                hub._listeners.Remove(channel);
            }
        }
    }
}
