using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>An eventfd(2) counter: the doorbell between vCPU threads, I/O threads and the kernel (irqfd, ioeventfd).</summary>
public sealed class EventFd : IDisposable
{
    /// <summary>Creates the descriptor, close-on-exec; nonblocking unless told otherwise.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public EventFd(bool nonblocking = true)
    {
        Handle = new FileDescriptorHandle(KernelException.ThrowIfError(EventCalls.Create(nonblocking), "eventfd"));
    }

    internal EventFd(FileDescriptorHandle handle) => Handle = handle;

    /// <summary>The descriptor, for KVM_IRQFD, KVM_IOEVENTFD, poll and io_uring.</summary>
    public FileDescriptorHandle Handle { get; }

    /// <summary>Adds one to the counter; wakes whoever waits.</summary>
    public void Signal()
    {
        int answer = EventCalls.Write(Handle, 1);
        if (answer < 0)
        {
            throw new KernelException("write eventfd", -answer);
        }
    }

    /// <summary>Takes the whole counter. False when it was zero (nonblocking eventfds only).</summary>
    public bool TryTake(out ulong count) => EventCalls.Read(Handle, out count) == 0;

    /// <inheritdoc/>
    public void Dispose() => Handle.Dispose();
}
