using Vmm.Contracts.Control;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;

namespace Vmm.Worker.Confinement;

/// <summary>
/// Takes from this process, once its VM is built, what it does not need any more: the file system, its user, and most system calls. What
/// takes time is prepared beside the building.
/// </summary>
internal sealed class Sandbox : IMachineThreads, IDisposable
{
    /// <summary>
    /// Rings for disks that are plugged in later, 12 KiB of kernel memory each: no ring is made any more once the filters are in force.
    /// </summary>
    internal const int SpareRings = 24;

    /// <summary>The same for queue pairs of network devices; where more come, rings for disks stand in.</summary>
    internal const int SpareWaitingRings = 4;

    private readonly bool _isolated;
    private readonly Thread _preparing;
    private readonly List<string> _missing = [];
    private ThreadFilters? _filters;

    /// <summary>Begins to prepare.</summary>
    /// <param name="isolated">The process was spawned in namespaces of its own and may change its root.</param>
    /// <param name="filters">Use system call filters.</param>
    internal Sandbox(bool isolated, bool filters)
    {
        _isolated = isolated;
        _preparing = new Thread(() => Prepare(filters)) { Name = "confine", IsBackground = true };
        _preparing.Start();
    }

    /// <summary>What holds, and what does not and why.</summary>
    internal ConfinementBody Report { get; private set; } = new([], []);

    /// <summary>Begins to make the filters of this VM, from what its parts ask for.</summary>
    internal void BuildFilters(MachineNeeds needs)
    {
        _preparing.Join();
        _filters?.Build(needs);
    }

    /// <summary>Makes the rings that devices will use, and those for disks that come later.</summary>
    /// <exception cref="KernelException">Out of memory or descriptors.</exception>
    internal void ProvideRings((int Waiting, int Disks) needed)
    {
        _preparing.Join();
        if (_filters is null)
        {
            return;
        }

        try
        {
            Fill(needed.Disks + SpareRings, RingOperations.All);
            Fill(needed.Waiting + SpareWaitingRings, RingOperations.Polls);
        }
        catch (IoUringUnavailableException)
        {
            // A VM that needs one was refused before.
        }
    }

    /// <summary>
    /// For good, on all threads. <paramref name="privileged"/> is the last thing done with the new user but without filters.
    /// </summary>
    /// <exception cref="KernelException">Something that should have held could not be had: the process is not to go on.</exception>
    internal void Close(uint? user, Action privileged)
    {
        _preparing.Join();
        List<string> applied = ["no-new-privileges", "no-core-dump"];
        LeaveFileSystem(applied);
        if (user is { } number)
        {
            ProcessHandle.BecomeUser(number);
            applied.Add("own-user");
        }
        else
        {
            _missing.Add("own-user: vmmd was given no user ids for workers");
        }

        privileged();
        if (_filters is { } filters)
        {
            IoUringPool.Seal();
            filters.Enforce();
            applied.Add("seccomp");
        }

        Report = new ConfinementBody(applied, _missing);
        foreach (string missing in _missing)
        {
            Console.Error.WriteLine($"vmm-worker {Environment.ProcessId}: not confined by {missing}");
        }
    }

    /// <inheritdoc/>
    public void Start(Thread thread)
    {
        if (_filters is { } filters)
        {
            filters.Start(thread);
        }
        else
        {
            thread.Start();
        }
    }

    /// <inheritdoc/>
    public void Ready() => _filters?.Ready(SyscallNeeds.None);

    /// <inheritdoc/>
    public IIoThreads With(SyscallNeeds needs) => new DeviceThreads(this, needs);

    /// <summary>
    /// Threads that read what comes from outside before there is a VM, and end before it is built: they are narrowed from their first step,
    /// while the process is not confined yet.
    /// </summary>
    internal IIoThreads Early(SyscallNeeds needs)
    {
        _preparing.Join();
        return new EarlyThreads(_filters, needs);
    }

    /// <inheritdoc/>
    public void VcpuReady() => _filters?.VcpuReady();

    /// <inheritdoc/>
    public void Dispose()
    {
        _preparing.Join();
        _filters?.Dispose();
    }

    private static void Fill(int count, RingOperations operations) =>
        IoUringPool.Add(Math.Max(0, count - IoUringPool.IdleCount(operations)), operations);

    private void LeaveFileSystem(List<string> applied)
    {
        if (!_isolated)
        {
            _missing.Add("namespaces, empty-root: vmmd may not make them (it needs CAP_SYS_ADMIN)");
            return;
        }

        applied.Add("namespaces");
        try
        {
            ProcessHandle.EmptyRoot();
            applied.Add("empty-root");
        }
        catch (KernelException cause)
        {
            _missing.Add($"empty-root: {cause.Message}"); // a host that runs on its initial RAM file system cannot pivot
        }
    }

    private void Prepare(bool filters)
    {
        if (!filters)
        {
            _missing.Add("seccomp: switched off");
        }
        else
        {
            try
            {
                _filters = new ThreadFilters();
            }
            catch (KernelException cause)
            {
                _missing.Add($"seccomp: {cause.Message}");
                return;
            }

            try
            {
                IoUringPool.Add(SpareRings, RingOperations.All);
            }
            catch (Exception cause) when (cause is KernelException or IoUringUnavailableException)
            {
                // The VM that is to be made here meets the same trouble, and is refused with the reason.
            }
        }
    }

    /// <summary>Threads before the process is confined.</summary>
    private sealed class EarlyThreads(ThreadFilters? filters, SyscallNeeds needs) : IIoThreads
    {
        public void Start(Thread thread) => thread.Start();

        public void Ready() => filters?.Narrow(needs);
    }

    /// <summary>The threads of one device.</summary>
    private sealed class DeviceThreads(Sandbox sandbox, SyscallNeeds needs) : IIoThreads
    {
        public void Start(Thread thread) => sandbox.Start(thread);

        public void Ready() => sandbox._filters?.Ready(needs);
    }
}
