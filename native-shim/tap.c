/* Moving frames of tap devices: many in one call. */
#define _GNU_SOURCE
#include "vmmshim.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

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
