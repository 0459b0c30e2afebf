namespace Vmm.Interop;

/// <summary>A timerfd(2) that expires once each time it is set, on the monotonic clock.</summary>
public sealed class TimerFd : IDisposable
{
    /// <summary>Creates the timer; it does not run yet.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public TimerFd()
    {
        nint fd = Native.TimerFd(out int errno);
        Event = fd < 0 ? throw new KernelException("timerfd_create", errno) : new EventFd(new FileDescriptorHandle(fd));
    }

    /// <summary>Readable when it expired; nobody may signal it.</summary>
    public EventFd Event { get; }

    /// <summary>Expires after that many milliseconds; 0 stops it.</summary>
    public void Set(int milliseconds) => KernelException.ThrowIfError(Native.TimerFdSet(Event.Handle, (uint)milliseconds), "timerfd_settime");

    /// <inheritdoc/>
    public void Dispose() => Event.Dispose();
}
