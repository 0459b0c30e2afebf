using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>Turns what libc answers into one number: the answer, or -errno. To be called right behind the call, on its thread.</summary>
internal static class Answer
{
    internal static int Of(int answer) => answer >= 0 ? answer : -LibC.errno;

    internal static long Of(ssize_t answer)
    {
        long value = answer;
        return value >= 0 ? value : -LibC.errno;
    }

    internal static long Of(syscall_arg answer) => Of((ssize_t)answer);
}
