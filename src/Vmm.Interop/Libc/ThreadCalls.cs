using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>Where threads run. Answers: 0 or more, or -errno.</summary>
internal static unsafe class ThreadCalls
{
    /// <summary>Lets a thread of this process (0: the calling one) run on the CPUs of the mask only.</summary>
    internal static int Pin(int thread, ReadOnlySpan<ulong> cpus)
    {
        fixed (ulong* mask = cpus)
        {
            return Answer.Of(LibC.sched_setaffinity(thread, cpus.Length * sizeof(ulong), (cpu_set_t*)mask));
        }
    }

    /// <summary>The calling thread's number, as /proc/PID/task has it.</summary>
    internal static int CurrentId() => (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_gettid));
}
