using System.Runtime.InteropServices;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>struct pollfd of poll(2).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct PollEntry
{
    private const short In = 1, Out = 4, Err = 8, Hup = 16, Nval = 32;

    private readonly int _fd;
    private readonly short _events;
    private readonly short _returned;

    /// <summary>Asks about a descriptor, which must stay open during the poll; a null one is passed over.</summary>
    public PollEntry(FileDescriptorHandle? descriptor, bool read, bool write = false) : this(descriptor?.Number ?? -1, read, write) { }

    /// <summary>Asks about these events of a descriptor, which must stay open during the poll.</summary>
    public PollEntry(SafeHandle file, PollEvents events)
    {
        _fd = (int)file.DangerousGetHandle();
        _events = (short)events;
        _returned = 0;
    }

    internal PollEntry(int descriptor, bool read, bool write = false)
    {
        _fd = descriptor;
        _events = (short)((read ? In : 0) | (write ? Out : 0));
        _returned = 0;
    }

    /// <summary>The events that came; hang-up and error also when they were not asked for.</summary>
    public readonly PollEvents Came => (PollEvents)(ushort)_returned;

    /// <summary>There is something to read, or the end of the stream.</summary>
    public readonly bool Readable => (_returned & (In | Hup | Err | Nval)) != 0;

    /// <summary>There is room to write, or nobody reads any more.</summary>
    public readonly bool Writable => (_returned & (Out | Hup | Err | Nval)) != 0;
}

/// <summary>poll(2).</summary>
public static class Poll
{
    /// <summary>Waits for any of them; how many are ready, 0 when the time is over (-1: no limit) or a signal came.</summary>
    /// <exception cref="KernelException">Too many descriptors.</exception>
    public static int Wait(Span<PollEntry> entries, int timeoutMilliseconds) =>
        WaitMicroseconds(entries, timeoutMilliseconds < 0 ? -1 : timeoutMilliseconds * 1000L);

    /// <summary>The same with a time in microseconds, which the kernel's timer slack (prctl(2), 50 µs by itself) lengthens.</summary>
    /// <exception cref="KernelException">Too many descriptors.</exception>
    public static int WaitMicroseconds(Span<PollEntry> entries, long timeoutMicroseconds) =>
        KernelException.ThrowIfError(PollCalls.Wait(entries, timeoutMicroseconds), "ppoll");
}
