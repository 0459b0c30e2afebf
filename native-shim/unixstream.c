/* Unix stream sockets that never block: consoles, and the host's side of a virtio socket device. */
#define _GNU_SOURCE
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int vmm_unix_address(const char *path, struct sockaddr_un *address)
{
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(address->sun_path))
        return ENAMETOOLONG;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

static intptr_t make(const char *path, int32_t backlog, int32_t *err)
{
    struct sockaddr_un address;
    *err = vmm_unix_address(path, &address);
    if (*err != 0) {
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *err = errno;
        return -1;
    }
    int rc = backlog > 0 ? bind(fd, (struct sockaddr *)&address, sizeof(address)) : connect(fd, (struct sockaddr *)&address, sizeof(address));
    if (rc == 0 && backlog > 0) {
        rc = listen(fd, backlog);
    }
    if (rc != 0) {
        *err = errno;
        close(fd);
        return -1;
    }
    return fd;
}

VMM_API intptr_t vmm_stream_listen(const char *path, int32_t backlog, int32_t *err)
{
    return make(path, backlog > 0 ? backlog : 1, err);
}

/* EAGAIN when the listener's backlog is full, ECONNREFUSED when nobody listens. */
VMM_API intptr_t vmm_stream_connect(const char *path, int32_t *err)
{
    return make(path, 0, err);
}

/* The same, but the last part of the path is a socket itself and no link to one: what was looked at is what is connected to. ECONNREFUSED otherwise. */
VMM_API intptr_t vmm_stream_connect_nofollow(const char *path, int32_t *err)
{
    char held[32];
    struct stat what;
    int at = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0) {
        *err = errno;
        return -1;
    }
    intptr_t fd = -1;
    if (fstat(at, &what) != 0) {
        *err = errno;
    } else if (!S_ISSOCK(what.st_mode)) {
        *err = ECONNREFUSED;
    } else {
        snprintf(held, sizeof(held), "/proc/self/fd/%d", at);
        fd = make(held, 0, err);
    }
    close(at);
    return fd;
}

VMM_API intptr_t vmm_stream_accept(intptr_t listener, int32_t *err)
{
    int fd = accept4((int)listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    *err = fd < 0 ? errno : 0;
    return fd;
}

/* Bytes sent, or -errno; no SIGPIPE. Zero bytes ask whether the far side is still there (-EPIPE when not). */
VMM_API int32_t vmm_stream_send(intptr_t fd, const void *bytes, int32_t length)
{
    ssize_t n;
    do {
        n = send((int)fd, bytes, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n;
}

/* Bytes received, 0 at the end, or -errno; with peek they stay there. */
VMM_API int32_t vmm_stream_receive(intptr_t fd, void *bytes, int32_t length, int32_t peek)
{
    ssize_t n;
    do {
        n = recv((int)fd, bytes, (size_t)length, MSG_DONTWAIT | (peek ? MSG_PEEK : 0));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n;
}

/* how: 1 sends no more, 2 neither sends nor receives. */
VMM_API int32_t vmm_stream_shutdown(intptr_t fd, int32_t how)
{
    return shutdown((int)fd, how == 1 ? SHUT_WR : SHUT_RDWR) == 0 ? 0 : -errno;
}
