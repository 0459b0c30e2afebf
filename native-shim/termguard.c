/* The terminal is put back by every signal that would end or stop this process while it is raw. */
#include "vmmshim.h"

#include <errno.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

static struct termios guard_settings, guard_raw;
static volatile sig_atomic_t guard_fd = -1;

static int ends_or_stops(int number)
{
    switch (number) {
    case SIGKILL: case SIGSTOP:                               /* cannot be caught */
    case SIGCHLD: case SIGCONT: case SIGURG: case SIGWINCH:   /* are ignored by default */
    case SIGTTIN: case SIGTTOU:                               /* somebody else has the terminal then */
        return 0;
    default:
        return 1;
    }
}

/* Async-signal-safe (signal-safety(7)): tcsetattr, sigaction, raise. */
static void put_back(int number)
{
    int saved = errno, fd = guard_fd;
    struct sigaction standard = { .sa_handler = SIG_DFL }, own;
    if (fd >= 0)
        tcsetattr(fd, TCSANOW, &guard_settings);
    sigaction(number, &standard, &own);
    sigset_t only, before;
    sigemptyset(&only);
    sigaddset(&only, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, &before); /* here it ends, or stops (SIGTSTP) */
    sigprocmask(SIG_SETMASK, &before, NULL);
    sigaction(number, &own, NULL);
    if (guard_fd >= 0)
        tcsetattr(fd, TCSANOW, &guard_raw);
    errno = saved;
}

/* From now on: the settings that fd has now come back; it is made raw afterwards. Handlers that others have installed stay. */
VMM_API int32_t vmm_terminal_guard(int32_t fd)
{
    if (tcgetattr(fd, &guard_settings) < 0)
        return -errno;
    guard_raw = guard_settings;
    cfmakeraw(&guard_raw);
    guard_fd = fd;
    struct sigaction ours = { .sa_handler = put_back }, now;
    sigfillset(&ours.sa_mask);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (ends_or_stops(number) && sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL)
            sigaction(number, &ours, NULL);
    return 0;
}

/* The terminal is as it was. */
VMM_API void vmm_terminal_unguard(void)
{
    guard_fd = -1;
    struct sigaction standard = { .sa_handler = SIG_DFL }, now;
    for (int number = 1; number <= SIGRTMAX; number++)
        if (sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == put_back)
            sigaction(number, &standard, NULL);
}
