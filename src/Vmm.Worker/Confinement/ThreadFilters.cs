using Vmm.Interop;
using Vmm.Machine.Resources;

namespace Vmm.Worker.Confinement;

/// <summary>
/// System call filters: one for the process, narrower ones for vCPU and I/O threads. I/O threads are asked for by a vCPU thread, whose filter they
/// would inherit: a thread of the process's own set starts them.
/// </summary>
internal sealed class ThreadFilters : IMachineThreads, IDisposable
{
    private readonly SeccompFilter _silent, _process, _vcpu, _io;
    private readonly Lock _one = new();
    private readonly SemaphoreSlim _asked = new(0), _answered = new(0);
    private readonly Thread _starter;
    private Thread? _next;
    private Exception? _failure;
    private volatile bool _inForce;

    /// <summary>Compiles the filters; none is in force yet.</summary>
    /// <exception cref="KernelException">No libseccomp.</exception>
    internal ThreadFilters()
    {
        _silent = SyscallSets.BuildSilent();
        _process = SyscallSets.BuildProcess(Environment.ProcessId);
        _vcpu = SyscallSets.BuildVcpu(Environment.ProcessId);
        _io = SyscallSets.BuildIo(Environment.ProcessId);
        _starter = new Thread(StartOthers, maxStackSize: 128 * 1024) { Name = "starter", IsBackground = true };
        _starter.Start();
    }

    /// <summary>Puts all threads under the filter of the process, and those that come to their work from now on under their own. No thread may have one yet.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    internal void Enforce()
    {
        _silent.LoadOnProcess(logged: false);
        _process.LoadOnProcess(logged: true);
        _inForce = true;
    }

    /// <inheritdoc/>
    public void Start(Thread thread)
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

    /// <inheritdoc/>
    public void VcpuReady() => Narrow(_vcpu);

    /// <inheritdoc/>
    public void Ready() => Narrow(_io);

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
        _io.Dispose();
    }

    private void Narrow(SeccompFilter filter)
    {
        if (_inForce)
        {
            filter.LoadOnThread();
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
