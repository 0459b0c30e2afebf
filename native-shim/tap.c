/* Tap devices: opening queues, what they accept, and moving frames. */
#define _GNU_SOURCE
#include "vmmshim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int set_name(struct ifreq *request, const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length >= IFNAMSIZ)
        return ENAMETOOLONG;
    memset(request, 0, sizeof(*request));
    memcpy(request->ifr_name, name, length);
    return 0;
}

/* One queue of a tap that exists already: TUNSETIFF would make a missing one, so its existence is asked first (ENODEV). */
VMM_API intptr_t vmm_tap_open(const char *name, int32_t multi_queue, int32_t *err)
{
    struct ifreq request;
    *err = set_name(&request, name);
    if (*err != 0)
        return -1;
    if (if_nametoindex(name) == 0) {
        *err = ENODEV;
        return -1;
    }
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        *err = errno;
        return -1;
    }
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0));
    if (ioctl(fd, TUNSETIFF, &request) != 0) {
        *err = errno;
        close(fd);
        return -1;
    }
    *err = 0;
    return fd;
}

/* Whether a descriptor is a tap queue with frame headers and no packet information: 0, or -ENOTTY, -EINVAL. name has room for 16 bytes. */
VMM_API int32_t vmm_tap_check(intptr_t fd, char *name)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    if (ioctl((int)fd, TUNGETIFF, &request) != 0)
        return -errno;
    memcpy(name, request.ifr_name, IFNAMSIZ);
    int wanted = IFF_TAP | IFF_VNET_HDR | IFF_NO_PI;
    return (request.ifr_flags & wanted) == wanted ? 0 : -EINVAL;
}

VMM_API int32_t vmm_tap_header(intptr_t fd, int32_t bytes)
{
    return ioctl((int)fd, TUNSETVNETHDRSZ, &bytes) == 0 ? 0 : -errno;
}

/* What the reader of the tap takes as it is: TUN_F_ bits. */
VMM_API int32_t vmm_tap_offload(intptr_t fd, uint32_t bits)
{
    return ioctl((int)fd, TUNSETOFFLOAD, (unsigned long)bits) == 0 ? 0 : -errno;
}

/* Frames go to attached queues only; -EINVAL when it is so already, or the tap has one queue. */
VMM_API int32_t vmm_tap_attach(intptr_t fd, int32_t attach)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    request.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    return ioctl((int)fd, TUNSETQUEUE, &request) == 0 ? 0 : -errno;
}

VMM_API int32_t vmm_interface_mtu(const char *name)
{
    struct ifreq request;
    int err = set_name(&request, name);
    if (err != 0)
        return -err;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int32_t mtu = ioctl(fd, SIOCGIFMTU, &request) == 0 ? request.ifr_mtu : -errno;
    close(fd);
    return mtu;
}

/* One frame: a vector, and what became of it. Twin of Vmm.Interop.TapFrame. */
struct vmm_tap_frame {
    intptr_t vectors;
    int32_t count;
    int32_t room;
    int64_t result;
};
_Static_assert(sizeof(struct vmm_tap_frame) == 24, "twin of Vmm.Interop.TapFrame");

/* A vector of one costs the kernel an eighth more than a plain buffer. The system calls are made bare: glibc's wrappers are cancellation points. */
static int64_t transfer(int fd, const struct vmm_tap_frame *frame, long plain, long vectored)
{
    const struct iovec *vectors = (const struct iovec *)frame->vectors;
    long n;
    if (frame->count <= 0)
        return -EMSGSIZE;
    do {
        n = frame->count == 1 ? syscall(plain, fd, vectors[0].iov_base, vectors[0].iov_len) : syscall(vectored, fd, vectors, (long)frame->count);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Reads frames until there is none (the one after the last then holds -errno), count were read, or one was longer than its room, which is the
 * last. Whole frames, never blocking; the number read. */
VMM_API int32_t vmm_tap_read(intptr_t fd, struct vmm_tap_frame *frames, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        frames[i].result = transfer((int)fd, &frames[i], SYS_read, SYS_readv);
        if (frames[i].result < 0)
            return i;
        if (frames[i].result > frames[i].room)
            return i + 1;
    }
    return count;
}

/* Writes frames until there is no room; how many were taken or refused (then result is -errno). One without vectors is refused. */
VMM_API int32_t vmm_tap_write(intptr_t fd, struct vmm_tap_frame *frames, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        frames[i].result = transfer((int)fd, &frames[i], SYS_write, SYS_writev);
        if (frames[i].result == -EAGAIN)
            return i;
    }
    return count;
}
