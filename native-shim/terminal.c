/* The controlling terminal: raw mode, and reads that can be called off. */
#include "vmmshim.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* Bytes of the buffer the caller keeps the old settings in. */
VMM_API int32_t vmm_terminal_state_size(void)
{
    return (int32_t)sizeof(struct termios);
}

VMM_API int32_t vmm_terminal_is_tty(int32_t fd)
{
    return isatty(fd);
}

/* Saves the settings, then switches to raw mode; output processing stays off too: the guest sends its own CR. */
VMM_API int32_t vmm_terminal_raw(int32_t fd, void *saved, int32_t size)
{
    struct termios settings;
    if (size < (int32_t)sizeof(settings))
        return -EINVAL;
    if (tcgetattr(fd, &settings) < 0)
        return -errno;
    memcpy(saved, &settings, sizeof(settings));
    cfmakeraw(&settings);
    return tcsetattr(fd, TCSANOW, &settings) < 0 ? -errno : 0;
}

VMM_API int32_t vmm_terminal_restore(int32_t fd, const void *saved, int32_t size)
{
    struct termios settings;
    if (size < (int32_t)sizeof(settings))
        return -EINVAL;
    memcpy(&settings, saved, sizeof(settings));
    return tcsetattr(fd, TCSANOW, &settings) < 0 ? -errno : 0;
}

/* Reads from fd; 0 at its end or once stop_fd is readable, -errno on failure. */
VMM_API int32_t vmm_terminal_read(int32_t fd, intptr_t stop_fd, void *buffer, int32_t length)
{
    for (;;) {
        struct pollfd polls[2] = { { .fd = fd, .events = POLLIN }, { .fd = (int)stop_fd, .events = POLLIN } };
        int n = poll(polls, 2, -1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (polls[1].revents)
            return 0;
        ssize_t got = read(fd, buffer, (size_t)length);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        return got < 0 ? -errno : (int32_t)got;
    }
}

/* Writes everything, waiting for a slow reader; 0 or -errno. */
VMM_API int32_t vmm_terminal_write(int32_t fd, const void *buffer, int32_t length)
{
    const char *at = buffer;
    while (length > 0) {
        ssize_t n = write(fd, at, (size_t)length);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = { .fd = fd, .events = POLLOUT };
            poll(&wait, 1, -1);
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        length -= (int32_t)n;
    }
    return 0;
}
