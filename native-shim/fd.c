/* File descriptors: close, eventfd, timerfd, folders. */
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

VMM_API int32_t vmm_close(intptr_t fd)
{
    return close((int)fd) == 0 ? 0 : -errno;
}

VMM_API intptr_t vmm_eventfd(uint32_t initial, int32_t nonblocking, int32_t *err)
{
    int fd = eventfd(initial, EFD_CLOEXEC | (nonblocking ? EFD_NONBLOCK : 0));
    *err = fd < 0 ? errno : 0;
    return fd;
}

VMM_API int32_t vmm_eventfd_write(intptr_t fd, uint64_t value)
{
    ssize_t n;
    do {
        n = write((int)fd, &value, sizeof(value));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* 0 and *value on success; -EAGAIN when a nonblocking eventfd is empty. */
VMM_API int32_t vmm_eventfd_read(intptr_t fd, uint64_t *value)
{
    ssize_t n;
    do {
        n = read((int)fd, value, sizeof(*value));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Not running yet; read with vmm_eventfd_read. */
VMM_API intptr_t vmm_timerfd(int32_t *err)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    *err = fd < 0 ? errno : 0;
    return fd;
}

/* Expires once, after that many milliseconds; 0 stops it. */
VMM_API int32_t vmm_timerfd_set(intptr_t fd, uint32_t milliseconds)
{
    struct itimerspec when = {.it_value = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000}};
    return timerfd_settime((int)fd, 0, &when, NULL) == 0 ? 0 : -errno;
}

/* The entries of a folder are on the disk when this returns 0. */
VMM_API int32_t vmm_folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int32_t answer = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return answer;
}
