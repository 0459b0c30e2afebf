/* Unix sockets that carry packets and descriptors (unix(7), SCM_RIGHTS). */
#define _GNU_SOURCE
#include "socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* 0 and two close-on-exec descriptors: packets keep their borders (SOCK_SEQPACKET), else a byte stream. */
VMM_API int32_t vmm_socket_pair(int32_t packets, int32_t *fds)
{
    int pair[2];
    if (socketpair(AF_UNIX, (packets ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    fds[0] = pair[0];
    fds[1] = pair[1];
    return 0;
}

/* A packet socket with a name, which does not listen yet. */
static intptr_t named_socket(const char *path, int connects, int32_t *err)
{
    struct sockaddr_un address;
    *err = vmm_unix_address(path, &address);
    if (*err != 0)
        return -1;
    /* A listener that hangs, with a full backlog, must not make who connects wait: EAGAIN (unix(7)). */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (connects ? SOCK_NONBLOCK : 0), 0);
    int answer = fd < 0 ? -1
        : connects ? connect(fd, (struct sockaddr *)&address, sizeof(address)) : bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (answer < 0) {
        *err = errno;
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

VMM_API intptr_t vmm_socket_bind(const char *path, int32_t *err)
{
    return named_socket(path, 0, err);
}

VMM_API intptr_t vmm_socket_connect(const char *path, int32_t *err)
{
    return named_socket(path, 1, err);
}

/* Whoever calls this is the peer that SO_PEERCRED shows to those who connect. */
VMM_API int32_t vmm_socket_listen(intptr_t fd, int32_t backlog)
{
    return listen((int)fd, backlog) < 0 ? -errno : 0;
}

VMM_API intptr_t vmm_socket_accept(intptr_t fd, int32_t *err)
{
    int accepted;
    do {
        accepted = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC);
    } while (accepted < 0 && errno == EINTR);
    *err = accepted < 0 ? errno : 0;
    return accepted;
}

VMM_API int32_t vmm_socket_peer(intptr_t fd, int32_t *pid, uint32_t *uid, uint32_t *gid)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    if (getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return -errno;
    *pid = peer.pid;
    *uid = peer.uid;
    *gid = peer.gid;
    return 0;
}

/* Sends one packet with its descriptors; waits timeout_ms (-1: for ever) for room, then -ETIMEDOUT. Never raises SIGPIPE. */
VMM_API int32_t vmm_socket_send(intptr_t fd, const void *bytes, int32_t length, const int32_t *fds, int32_t count, int32_t timeout_ms)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VMM_MAX_FDS)];
    } control;
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = (size_t)length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (length <= 0 || count < 0 || count > VMM_MAX_FDS)
        return -EINVAL;
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    }
    for (;;) {
        ssize_t sent = sendmsg((int)fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0)
            return sent == length ? 0 : -EMSGSIZE;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        struct pollfd room = {.fd = (int)fd, .events = POLLOUT};
        int ready = poll(&room, 1, timeout_ms);
        if (ready == 0)
            return -ETIMEDOUT;
        if (ready < 0 && errno != EINTR)
            return -errno;
    }
}

/*
 * Takes one packet without waiting: its length, 0 at the end of the connection, -EAGAIN when there is none. A packet or a
 * descriptor list that does not fit is -EMSGSIZE; then, as on any error, no descriptor stays open.
 */
VMM_API int32_t vmm_socket_receive(intptr_t fd, void *bytes, int32_t capacity, int32_t *fds, int32_t most, int32_t *count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VMM_MAX_FDS)];
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = (size_t)capacity};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    ssize_t length;
    *count = 0;
    do {
        length = recvmsg((int)fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (length < 0 && errno == EINTR);
    if (length < 0)
        return -errno;

    int fits = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t carried = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < carried; i++) {
            int one;
            memcpy(&one, CMSG_DATA(header) + i * sizeof(int), sizeof(one));
            if (fits && *count < most) {
                fds[(*count)++] = one;
            } else {
                close(one);
                fits = 0;
            }
        }
    }
    if (fits)
        return (int32_t)length;
    while (*count > 0)
        close(fds[--*count]);
    return -EMSGSIZE;
}

/* ppoll(2) over struct pollfd, for ever when the time is negative; how many are ready. */
VMM_API int32_t vmm_poll(void *polls, int32_t count, int64_t timeout_us)
{
    struct timespec time = {.tv_sec = timeout_us / 1000000, .tv_nsec = timeout_us % 1000000 * 1000};
    int n = ppoll(polls, (nfds_t)count, timeout_us < 0 ? NULL : &time, NULL);
    return n < 0 ? (errno == EINTR ? 0 : -errno) : n;
}
