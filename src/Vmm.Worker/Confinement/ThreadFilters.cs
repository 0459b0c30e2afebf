using Vmm.Interop;
using Vmm.Machine.Run;

namespace Vmm.Worker.Confinement;

/// <summary>
/// System call filters: one for the process, narrower ones for vCPU threads and for the I/O threads of each device, made of what the parts
/// of the VM ask for. I/O threads are asked for by a vCPU thread, whose filter they would inherit: a thread of the process's own set starts
/// them.
/// </summary>
internal sealed class ThreadFilters : IDisposable
{
    private readonly SeccompFilter _silent;
    private readonly List<(SyscallNeeds Needs, SeccompFilter Filter)> _io = []; // a kind of device has one
    private Thread? _building;
    private Exception? _unbuilt;
    private bool _built;
    private SeccompFilter _process, _vcpu; // at first those of a VM without parts of its own, which fit most VMs
    private readonly Lock _one = new();
    private readonly SemaphoreSlim _asked = new(0), _answered = new(0);
    private readonly Thread _starter;
    private Thread? _next;
    private Exception? _failure;
    private volatile bool _inForce;

    /// <summary>Compiles the filters that most VMs have; none is in force yet.</summary>
    /// <exception cref="KernelException">No libseccomp.</exception>
    internal ThreadFilters()
    {
        _silent = SyscallSets.BuildSilent();
        (_process, _vcpu) = Compile(MachineNeeds.Pluggable);
        _starter = new Thread(StartOthers, maxStackSize: 128 * 1024) { Name = "starter", IsBackground = true };
        _starter.Start();
    }

    /// <summary>Begins to compile the filters of a machine that needs others, beside what the caller does next.</summary>
    internal void Build(MachineNeeds needs)
    {
        _built = true;
        if (!SyscallSets.IsUsual(needs))
        {
            _building = new Thread(() => Rebuild(needs)) { Name = "filters", IsBackground = true };
            _building.Start();
        }
    }

    /// <summary>
    /// Puts all threads under the filter of the process, and those that come to their work from now on under their own. No thread may have
    /// one yet.
    /// </summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    /// <exception cref="InvalidOperationException">Nobody said what the machine needs.</exception>
    internal void Enforce()
    {
        _building?.Join();
        if (!_built || _unbuilt is not null)
        {
            throw _unbuilt ?? new InvalidOperationException("the filters of this VM were not built");
        }

        _silent.LoadOnProcess(logged: false);
        _process.LoadOnProcess(logged: true);
        _inForce = true;
    }

    /// <summary>Starts a thread from one that no narrow filter holds.</summary>
    internal void Start(Thread thread)
    {
        lock (_one)
        {
            _next = thread;
            _asked.Release();
            _answered.Wait();
            if (_failure is { } failure)
            {
                throw new InvalidOperationException($"thread {thread.Name} cannot be started: {failure.Message}", failure);
            }
        }
    }

    /// <summary>Narrows the calling thread to what vCPU threads need.</summary>
    internal void VcpuReady()
    {
        if (_inForce)
        {
            _vcpu.LoadOnThread();
        }
    }

    /// <summary>
    /// Narrows the calling thread to what a device's threads need. The first of a kind makes the filter: it may do that until it has it.
    /// </summary>
    internal void Ready(SyscallNeeds needs)
    {
        if (_inForce)
        {
            Narrow(needs);
        }
    }

    /// <summary>The same before the process has its filter. The thread ends before it gets that.</summary>
    internal void Narrow(SyscallNeeds needs)
    {
        SeccompFilter? filter;
        lock (_io)
        {
            filter = _io.Find(known => known.Needs.Covers(needs) && needs.Covers(known.Needs)).Filter;
            if (filter is null)
            {
                filter = SyscallSets.BuildIo(Environment.ProcessId, needs);
                _io.Add((needs, filter));
            }
        }

        filter.LoadOnThread();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_one)
        {
            _next = null;
            _asked.Release();
        }

        _starter.Join();
        _asked.Dispose();
        _answered.Dispose();
        _silent.Dispose();
        _process.Dispose();
        _vcpu.Dispose();
        foreach ((_, SeccompFilter filter) in _io)
        {
            filter.Dispose();
        }
    }

    // A vCPU thread is under both: what it needs, the process may do.
    private static (SeccompFilter Process, SeccompFilter Vcpu) Compile(MachineNeeds needs) =>
        (SyscallSets.BuildProcess(Environment.ProcessId, needs.Threads + needs.Vcpus),
            SyscallSets.BuildVcpu(Environment.ProcessId, needs.Vcpus));

    private void Rebuild(MachineNeeds needs)
    {
        try
        {
            (SeccompFilter process, SeccompFilter vcpu) = Compile(needs);
            _process.Dispose();
            _vcpu.Dispose();
            (_process, _vcpu) = (process, vcpu);
        }
#pragma warning disable CA1031 // Whoever wants the filters gets it.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _unbuilt = cause;
        }
    }

    private void StartOthers()
    {
        while (true)
        {
            _asked.Wait();
            if (_next is not { } thread)
            {
                return;
            }

            _failure = null;
            try
            {
                thread.Start();
            }
#pragma warning disable CA1031 // Out of memory or of threads: the thread that asked gets it.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                _failure = cause;
            }

            _answered.Release();
        }
    }
}
