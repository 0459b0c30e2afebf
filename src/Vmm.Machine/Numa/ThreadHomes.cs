using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Resources;

namespace Vmm.Machine.Numa;

/// <summary>A thread of a machine and the vnode it belongs to.</summary>
/// <param name="Name"><c>vcpu0</c>, <c>disk0-io0</c>, …</param>
/// <param name="Id">Its number, as /proc/PID/task has it.</param>
/// <param name="Vnode">The vnode on whose host CPUs it runs.</param>
public sealed record HomedThread(string Name, int Id, int Vnode);

/// <summary>
/// Keeps the threads of a machine on the host CPUs of their vnode, also when those change. A vCPU belongs to the vnode of its CPU. I/O
/// threads read and write the whole guest's memory: with one vnode they belong to it, with several they are dealt out in turn, so that no
/// host node has all of them; only the threads of a device that names a vnode, and of a vnode's own memory device, are tied to it.
/// </summary>
/// <param name="inner">Who starts and confines threads; null: nobody.</param>
/// <param name="cpus">Host CPUs of each vnode; empty is any.</param>
internal sealed class ThreadHomes(IMachineThreads? inner, IReadOnlyList<int>[] cpus) : IIoThreads
{
    private readonly IIoThreads _starter = inner ?? (IIoThreads)PlainIoThreads.Instance;
    private readonly Lock _gate = new();
    private readonly Dictionary<string, int> _tied = new(StringComparer.Ordinal);
    private readonly List<(Thread Thread, HomedThread Home)> _threads = [];
    private int _next;

    /// <summary>The threads that run, in the order in which they came.</summary>
    internal IReadOnlyList<HomedThread> Threads
    {
        get
        {
            lock (_gate)
            {
                Forget();
                return [.. _threads.Select(t => t.Home)];
            }
        }
    }

    /// <inheritdoc/>
    public void Start(Thread thread) => _starter.Start(thread);

    /// <inheritdoc/>
    public void Ready() => Ready(inner);

    /// <inheritdoc/>
    public IIoThreads With(SyscallNeeds needs) => inner is null ? this : new Confined(this, inner.With(needs));

    private void Ready(IIoThreads? confined)
    {
        Settle(null);
        confined?.Ready();
    }

    /// <summary>Called by a vCPU thread before it enters the guest for the first time.</summary>
    internal void VcpuReady(int vnode)
    {
        Settle(vnode);
        inner?.VcpuReady();
    }

    /// <summary>The I/O threads of this device (<c>disk0</c>: <c>disk0-io0</c>, …) will belong to a vnode.</summary>
    internal void Tie(string device, int vnode)
    {
        lock (_gate)
        {
            _tied[device] = vnode;
        }
    }

    private int Home(string thread) =>
        thread.LastIndexOf('-') is > 0 and var end && _tied.TryGetValue(thread[..end], out int tied) ? tied : _next++ % cpus.Length;

    /// <summary>Moves the threads of a vnode, and those that come to it, to other host CPUs.</summary>
    /// <exception cref="KernelException">The CPUs are not for this process.</exception>
    internal void Move(int vnode, IReadOnlyList<int> hostCpus)
    {
        lock (_gate)
        {
            Forget();
            cpus[vnode] = hostCpus;
            foreach ((_, HomedThread home) in _threads)
            {
                if (home.Vnode == vnode && hostCpus.Count > 0)
                {
                    ThreadPlacement.Pin(home.Id, hostCpus);
                }
            }
        }
    }

    private void Settle(int? wanted)
    {
        Thread thread = Thread.CurrentThread;
        string name = thread.Name ?? "";
        lock (_gate)
        {
            Forget();
            int vnode = wanted ?? Home(name);
            _threads.Add((thread, new HomedThread(name, ThreadPlacement.CurrentId, vnode)));
            if (cpus[vnode].Count > 0)
            {
                ThreadPlacement.PinCurrent(cpus[vnode]);
            }
        }
    }

    // I/O threads end when their driver resets the device; numbers of threads that are gone are given to others.
    private void Forget() => _threads.RemoveAll(t => !t.Thread.IsAlive);

    /// <summary>The threads of one device: at home where all are, confined as it asks for.</summary>
    private sealed class Confined(ThreadHomes homes, IIoThreads confined) : IIoThreads
    {
        public void Start(Thread thread) => homes.Start(thread);

        public void Ready() => homes.Ready(confined);
    }
}
