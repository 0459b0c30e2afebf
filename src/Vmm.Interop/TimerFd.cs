using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>A timerfd(2) that expires once each time it is set, on the monotonic clock.</summary>
public sealed class TimerFd : IDisposable
{
    /// <summary>Creates the timer; it does not run yet.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public TimerFd()
    {
        Event = new EventFd(new FileDescriptorHandle(KernelException.ThrowIfError(EventCalls.CreateTimer(), "timerfd_create")));
    }

    /// <summary>Readable when it expired; nobody may signal it.</summary>
    public EventFd Event { get; }

    /// <summary>Expires after that many milliseconds; 0 stops it.</summary>
    public void Set(int milliseconds) => KernelException.ThrowIfError(EventCalls.SetTimer(Event.Handle, (uint)milliseconds), "timerfd_settime");

    /// <inheritdoc/>
    public void Dispose() => Event.Dispose();
}
