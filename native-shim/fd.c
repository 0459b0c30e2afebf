/* File descriptors: close and eventfd. */
#include "fd.h"

#include <errno.h>
#include <sys/eventfd.h>
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
