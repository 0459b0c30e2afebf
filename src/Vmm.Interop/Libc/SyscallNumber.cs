namespace Vmm.Interop.Libc;

/// <summary>
/// System calls that Tmds.LibC 0.5 has no function for, by their numbers on x86-64 (asm/unistd_64.h). Also ppoll(2): the package's own
/// declaration does not keep errno. A test compares the numbers with the system's headers.
/// </summary>
internal static class SyscallNumber
{
    internal const int SYS_pivot_root = 155;
    internal const int SYS_prctl = 157;
    internal const int SYS_gettid = 186;
    internal const int SYS_exit_group = 231;
    internal const int SYS_mbind = 237;
    internal const int SYS_waitid = 247;
    internal const int SYS_ppoll = 271;
    internal const int SYS_move_pages = 279;
    internal const int SYS_preadv = 295;
    internal const int SYS_pwritev = 296;
    internal const int SYS_prlimit64 = 302;
    internal const int SYS_getrandom = 318;
    internal const int SYS_preadv2 = 327;
    internal const int SYS_pidfd_send_signal = 424;
    internal const int SYS_pidfd_open = 434;
}
