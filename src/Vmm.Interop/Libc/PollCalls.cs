using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>ppoll(2).</summary>
internal static unsafe class PollCalls
{
    /// <summary>How many entries are ready, 0 when the time (negative: none) is over or a signal came, or -errno.</summary>
    internal static int Wait(Span<PollEntry> entries, long timeoutMicroseconds)
    {
        long* time = stackalloc long[2] { timeoutMicroseconds / 1_000_000, timeoutMicroseconds % 1_000_000 * 1000 };
        fixed (PollEntry* first = entries)
        {
            long ready = Answer.Of(
                LibC.syscall(SyscallNumber.SYS_ppoll, first, entries.Length, timeoutMicroseconds < 0 ? null : time, (void*)null, 0));
            return ready == -Errno.EINTR ? 0 : (int)ready;
        }
    }
}
