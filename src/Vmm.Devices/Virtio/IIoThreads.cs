using Vmm.Interop;

namespace Vmm.Devices.Virtio;

/// <summary>
/// How the I/O threads of devices come to life. A driver starts them from a vCPU thread, and a thread inherits from the one that starts it
/// (CPU set, system call filter): whoever confines threads starts them from elsewhere.
/// </summary>
public interface IIoThreads
{
    /// <summary>Starts a thread and returns when it runs. Any thread.</summary>
    void Start(Thread thread);

    /// <summary>Called by an I/O thread that has made what it needs (its io_uring), before it looks at anything of the guest.</summary>
    void Ready();

    /// <summary>The same for the threads of a device that asks for certain things of the kernel, and nothing else.</summary>
    IIoThreads With(SyscallNeeds needs) => this;
}

/// <summary>Threads that are just started.</summary>
public sealed class PlainIoThreads : IIoThreads
{
    /// <summary>The only one needed.</summary>
    public static PlainIoThreads Instance { get; } = new();

    private PlainIoThreads() { }

    /// <inheritdoc/>
    public void Start(Thread thread) => thread.Start();

    /// <inheritdoc/>
    public void Ready() { }
}
