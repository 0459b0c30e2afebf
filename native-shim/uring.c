/* io_uring for doorbells and block I/O. A ring serves one thread at a time, one after another: a confined process makes no more of them, so they are kept for the next. */
#include "vmmshim.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>

struct vmm_completion {
    uint64_t tag;
    int32_t result; /* bytes or -errno */
    uint32_t reserved;
};
_Static_assert(sizeof(struct vmm_completion) == 16, "twin of Vmm.Interop.IoCompletion");

/*
 * TASKRUN_FLAG lets a busy poll see pending completions in shared memory, without a system call. Not SINGLE_ISSUER, nor DEFER_TASKRUN, which needs it: such a ring belongs to
 * its first thread for good.
 */
static const unsigned setup_choices[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};

/*
 * What this file queues, and nothing else: a seccomp filter does not see what a ring does. Each operation with the group that has it, twins of Vmm.Interop.RingOperations:
 * a ring is made for some groups.
 */
enum { GROUP_POLLS = 1, GROUP_FILES = 2 };
static const struct {
    uint32_t group;
    uint8_t operation;
} used_operations[] = {
    {GROUP_POLLS, IORING_OP_POLL_ADD}, {GROUP_POLLS, IORING_OP_POLL_REMOVE},
    {GROUP_FILES, IORING_OP_READV}, {GROUP_FILES, IORING_OP_WRITEV}, {GROUP_FILES, IORING_OP_FSYNC}, {GROUP_FILES, IORING_OP_FALLOCATE},
};
#define USED_OPERATIONS (sizeof(used_operations) / sizeof(used_operations[0]))

/* A ring that was created disabled gets its restrictions (io_uring_register(2), Linux 5.10), for good, and is started. */
static int restrict_and_enable(struct io_uring *ring, uint32_t groups)
{
    struct io_uring_restriction allow[USED_OPERATIONS] = {0};
    unsigned count = 0;
    for (size_t i = 0; i < USED_OPERATIONS; i++) {
        if ((used_operations[i].group & groups) == 0)
            continue;
        allow[count].opcode = IORING_RESTRICTION_SQE_OP;
        allow[count++].sqe_op = used_operations[i].operation;
    }
    int rc = io_uring_register_restrictions(ring, allow, count);
    return rc < 0 ? rc : io_uring_enable_rings(ring);
}

/* The ring's address, or -1 with errno in *err: entries that can be queued at once, completions that fit without a detour, groups of operations that it can do. *flags gets
 * the set-up flags that the kernel accepted. */
VMM_API intptr_t vmm_uring_create(uint32_t entries, uint32_t completions, uint32_t groups, uint32_t *flags, int32_t *err)
{
    struct io_uring *ring = calloc(1, sizeof(*ring));
    *flags = 0;
    if (!ring) {
        *err = ENOMEM;
        return -1;
    }
    int rc = -EINVAL;
    for (size_t i = 0; i < sizeof(setup_choices) / sizeof(setup_choices[0]) && rc == -EINVAL; i++) {
        struct io_uring_params params = {.flags = setup_choices[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE, .cq_entries = completions};
        rc = io_uring_queue_init_params(entries, ring, &params);
        *flags = setup_choices[i];
    }
    if (rc >= 0) {
        rc = restrict_and_enable(ring, groups);
        if (rc < 0)
            io_uring_queue_exit(ring);
    }
    if (rc < 0) {
        free(ring);
        *err = -rc;
        return -1;
    }
    *err = 0;
    return (intptr_t)ring;
}

VMM_API int32_t vmm_uring_destroy(intptr_t handle)
{
    io_uring_queue_exit((struct io_uring *)handle);
    free((void *)handle);
    return 0;
}

/* A free submission entry; a full submission ring is submitted first. */
static struct io_uring_sqe *next_sqe(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe) {
        io_uring_submit(ring);
        sqe = io_uring_get_sqe(ring);
    }
    return sqe;
}

VMM_API int32_t vmm_uring_readv(intptr_t handle, int32_t fd, intptr_t iovecs, uint32_t count, uint64_t offset, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe((struct io_uring *)handle);
    if (!sqe)
        return -EBUSY;
    io_uring_prep_readv(sqe, fd, (const struct iovec *)iovecs, count, offset);
    sqe->user_data = tag;
    return 0;
}

VMM_API int32_t vmm_uring_writev(intptr_t handle, int32_t fd, intptr_t iovecs, uint32_t count, uint64_t offset, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe((struct io_uring *)handle);
    if (!sqe)
        return -EBUSY;
    io_uring_prep_writev(sqe, fd, (const struct iovec *)iovecs, count, offset);
    sqe->user_data = tag;
    return 0;
}

VMM_API int32_t vmm_uring_fdatasync(intptr_t handle, int32_t fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe((struct io_uring *)handle);
    if (!sqe)
        return -EBUSY;
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    sqe->user_data = tag;
    return 0;
}

VMM_API int32_t vmm_uring_fallocate(intptr_t handle, int32_t fd, int32_t mode, uint64_t offset, uint64_t length, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe((struct io_uring *)handle);
    if (!sqe)
        return -EBUSY;
    io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)length);
    sqe->user_data = tag;
    return 0;
}

/* One completion, with the poll(2) bits as its result, when fd has any of events (POLLERR and POLLHUP always count). */
VMM_API int32_t vmm_uring_poll_events(intptr_t handle, int32_t fd, uint32_t events, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe((struct io_uring *)handle);
    if (!sqe)
        return -EBUSY;
    io_uring_prep_poll_add(sqe, fd, events);
    sqe->user_data = tag;
    return 0;
}

/* Calls off what was queued by the one above; it completes with -ECANCELED. This completes, too, with its own tag. */
VMM_API int32_t vmm_uring_poll_remove(intptr_t handle, uint64_t poll_tag, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe((struct io_uring *)handle);
    if (!sqe)
        return -EBUSY;
    io_uring_prep_poll_remove(sqe, poll_tag);
    sqe->user_data = tag;
    return 0;
}

VMM_API int32_t vmm_uring_submit(intptr_t handle)
{
    int rc;
    do {
        rc = io_uring_submit((struct io_uring *)handle);
    } while (rc == -EINTR);
    return rc;
}

/*
 * Submits and sleeps until one completion is there, for that long at most; negative is for ever. -EINTR and -ETIME are ordinary answers. The time goes along with
 * io_uring_enter (IORING_FEAT_EXT_ARG, Linux 5.11): it is no operation that a ring's restrictions would have to allow.
 */
VMM_API int32_t vmm_uring_submit_and_wait(intptr_t handle, int64_t nanoseconds)
{
    struct io_uring *ring = (struct io_uring *)handle;
    if (nanoseconds < 0)
        return io_uring_submit_and_wait(ring, 1);
    if ((ring->features & IORING_FEAT_EXT_ARG) == 0)
        return -ENOSYS;
    struct __kernel_timespec most = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    struct io_uring_cqe *first;
    return io_uring_submit_and_wait_timeout(ring, &first, 1, &most, NULL);
}

/* Takes up to max completions without sleeping; enters the kernel only when it has work for us there. */
VMM_API int32_t vmm_uring_reap(intptr_t handle, struct vmm_completion *out, int32_t max)
{
    struct io_uring *ring = (struct io_uring *)handle;
    struct io_uring_cqe *cqe;
    int32_t n = 0;
    while (n < max && io_uring_peek_cqe(ring, &cqe) == 0 && cqe) {
        out[n].tag = cqe->user_data;
        out[n].result = cqe->res;
        out[n].reserved = 0;
        io_uring_cqe_seen(ring, cqe);
        n++;
    }
    return n;
}
