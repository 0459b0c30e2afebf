/* Page faults of guest memory: userfaultfd(2), and the first answer to a fault.
 *
 * The first answer is here, not in C#, for one reason: a fault can stop a thread in the middle of managed code, where the garbage collector
 * cannot suspend it. What answers it must not wait for the collector. It decides nothing: it reads what a page is in the table of
 * Vmm.Memory.Paging.ResidencyCache, does the three answers that need no disk, and passes the others on. */
#define _GNU_SOURCE
#include "threads.h"
#include "vmmshim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ull
#define GROUP 16 /* pages; zeroed together */

/* Twin of Vmm.Memory.Paging.PageState; what is not here is passed on. The bits above say "used lately", and "its slot in the swap store holds what it holds": mapped write-protected. */
enum { EMPTY = 0, RESIDENT = 1, STAGED = 2, MOVING = 4, STATE = 7, USED = 8, KEPT = 16 };

/* One mapping. Twin of Vmm.Interop.PagerSpan. */
struct vmm_pager_span {
    uint64_t address;
    uint64_t pages;
    uint64_t first; /* index of its first page in the table, a multiple of GROUP */
};

/* Twin of Vmm.Interop.PagerBoard. */
struct vmm_pager_board {
    intptr_t states; /* a byte a page */
    intptr_t spans;
    uint64_t span_count;
    _Atomic int64_t resident; /* pages, staged ones among them */
    _Atomic int64_t staged;
    _Atomic int64_t ceiling; /* above this many no page is zeroed here */
    _Atomic int64_t faults;
    _Atomic int64_t staged_faults;
    _Atomic int64_t zeroed;
    _Atomic int64_t copy_faults; /* of threads in vmm_pager_copy */
    _Atomic int64_t foreign_faults; /* of threads of this process that are neither that nor vCPUs: nobody may wait there */
    int32_t faults_fd;
    int32_t stop_fd;
    int32_t others_fd; /* a pipe: indexes of pages for whom the answer is not here, 8 bytes each */
    int32_t reserved;
};
_Static_assert(sizeof(struct vmm_pager_span) == 24, "twin of Vmm.Interop.PagerSpan");
_Static_assert(sizeof(struct vmm_pager_board) == 104, "twin of Vmm.Interop.PagerBoard");

static int32_t call(intptr_t fd, unsigned long request, void *argument)
{
    return syscall(SYS_ioctl, (long)fd, request, argument) < 0 ? -errno : 0;
}

/* A userfaultfd of this process from /dev/userfaultfd, also for faults of the kernel; or -errno. */
VMM_API int32_t vmm_uffd_open(intptr_t device)
{
    long fd = syscall(SYS_ioctl, (long)device, (unsigned long)USERFAULTFD_IOC_NEW, (unsigned long)(O_CLOEXEC | O_NONBLOCK));
    return fd < 0 ? -errno : (int32_t)fd;
}

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* Linux 6.7 */
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((uint64_t)1 << 1) /* Linux 6.4 */
#endif

/* Says what is wanted of it: -EINVAL when this kernel cannot do minor faults of shared memory. 1 when it also protects pages from writes, and lets who
 * writes go on by itself: whether somebody did is in /proc/self/pagemap. */
VMM_API int32_t vmm_uffd_begin(intptr_t fd)
{
    struct uffdio_api all = {.api = UFFD_API,
        .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_PAGEFAULT_FLAG_WP
            | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_ASYNC};
    if (call(fd, UFFDIO_API, &all) == 0)
        return 1;
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID};
    return call(fd, UFFDIO_API, &api);
}

/* From now on faults of the range come to the descriptor: of pages that are not in memory, and of those that are and not mapped. */
VMM_API int32_t vmm_uffd_register(intptr_t fd, uint64_t address, uint64_t length, int32_t protects)
{
    struct uffdio_register range = {.range = {.start = address, .len = length},
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | (protects ? UFFDIO_REGISTER_MODE_WP : 0)};
    return call(fd, UFFDIO_REGISTER, &range);
}

VMM_API int32_t vmm_uffd_unregister(intptr_t fd, uint64_t address, uint64_t length)
{
    struct uffdio_range range = {.start = address, .len = length};
    return call(fd, UFFDIO_UNREGISTER, &range);
}

/* Lets who waits for the range try again. */
VMM_API int32_t vmm_uffd_wake(intptr_t fd, uint64_t address, uint64_t length)
{
    struct uffdio_range range = {.start = address, .len = length};
    return call(fd, UFFDIO_WAKE, &range);
}

/* Maps pages that are in memory, and wakes who waits for them. A page that is mapped already is no error. */
VMM_API int32_t vmm_uffd_continue(intptr_t fd, uint64_t address, uint64_t length, int32_t protect)
{
    while (length > 0) {
        struct uffdio_continue range = {.range = {.start = address, .len = length}, .mode = protect ? UFFDIO_CONTINUE_MODE_WP : 0};
        int32_t answer = call(fd, UFFDIO_CONTINUE, &range);
        if (answer == 0)
            return 0;
        if (range.mapped > 0) {
            address += (uint64_t)range.mapped;
            length -= (uint64_t)range.mapped;
        } else if (answer == -EEXIST) {
            /* it wakes nobody then */
            answer = vmm_uffd_wake(fd, address, PAGE);
            if (answer < 0)
                return answer;
            address += PAGE;
            length -= PAGE;
        } else if (answer != -EAGAIN) {
            return answer;
        }
    }
    return 0;
}

/* Puts pages in place that are not in memory, maps them and wakes. -EEXIST: one of them is there. */
VMM_API int32_t vmm_uffd_copy(intptr_t fd, uint64_t address, uint64_t source, uint64_t length, int32_t protect)
{
    while (length > 0) {
        struct uffdio_copy copy = {.dst = address, .src = source, .len = length, .mode = protect ? UFFDIO_COPY_MODE_WP : 0};
        int32_t answer = call(fd, UFFDIO_COPY, &copy);
        if (answer == 0)
            return 0;
        if (answer != -EAGAIN && copy.copy <= 0)
            return answer;
        if (copy.copy > 0) {
            address += (uint64_t)copy.copy;
            source += (uint64_t)copy.copy;
            length -= (uint64_t)copy.copy;
        }
    }
    return 0;
}

/* The same with zeros. */
VMM_API int32_t vmm_uffd_zero(intptr_t fd, uint64_t address, uint64_t length)
{
    while (length > 0) {
        struct uffdio_zeropage zero = {.range = {.start = address, .len = length}};
        int32_t answer = call(fd, UFFDIO_ZEROPAGE, &zero);
        if (answer == 0)
            return 0;
        if (answer != -EAGAIN && zero.zeropage <= 0)
            return answer;
        if (zero.zeropage > 0) {
            address += (uint64_t)zero.zeropage;
            length -= (uint64_t)zero.zeropage;
        }
    }
    return 0;
}

/* A copy during which the thread can be stopped for a garbage collection, however long it waits for a page. */
VMM_API void vmm_pager_copy(intptr_t to, intptr_t from, uint64_t length)
{
    int before = vmm_thread_does(VMM_DOING_COPY);
    memcpy((void *)to, (const void *)from, length);
    atomic_signal_fence(memory_order_seq_cst);
    vmm_thread_does(before);
}

static const struct vmm_pager_span *find(const struct vmm_pager_board *board, uint64_t address)
{
    const struct vmm_pager_span *spans = (const struct vmm_pager_span *)board->spans;
    for (uint64_t i = 0; i < board->span_count; i++)
        if (address - spans[i].address < spans[i].pages * PAGE)
            return &spans[i];
    return NULL;
}

/* Never waits for who reads the pipe: it may be stopped for a collection that waits for an answer of ours. With a full pipe the fault comes again. */
static int pass_on(const struct vmm_pager_board *board, const struct vmm_pager_span *span, uint64_t page)
{
    uint64_t index = span->first + page;
    ssize_t n;
    do {
        n = write(board->others_fd, &index, sizeof(index));
    } while (n < 0 && errno == EINTR);
    if (n == sizeof(index))
        return 0;
    if (errno != EAGAIN)
        return -errno;
    sched_yield();
    return vmm_uffd_wake(board->faults_fd, span->address + page * PAGE, PAGE);
}

/* Maps a page that is in memory although nobody here put it there, or zeros. */
static int place(const struct vmm_pager_board *board, uint64_t address)
{
    int answer = vmm_uffd_zero(board->faults_fd, address, PAGE);
    return answer == -EEXIST ? vmm_uffd_continue(board->faults_fd, address, PAGE, 0) : answer;
}

/* Zeroes the page, and its neighbours that are empty too while there is much room. 1: another has to answer. 2: it is empty no more. */
static int zero(struct vmm_pager_board *board, const struct vmm_pager_span *span, uint64_t page)
{
    _Atomic uint8_t *states = (_Atomic uint8_t *)board->states + span->first;
    uint64_t first = page, end = page + 1;
    int64_t room = atomic_load(&board->ceiling) - atomic_load(&board->resident);
    uint8_t empty = EMPTY;
    int answer;
    if (room <= 0)
        return 1;
    if (!atomic_compare_exchange_strong(&states[page], &empty, MOVING))
        return 2;
    if (room > 64 * GROUP) {
        uint64_t from = page & ~(uint64_t)(GROUP - 1), to = from + GROUP < span->pages ? from + GROUP : span->pages;
        for (empty = EMPTY; first > from && atomic_compare_exchange_strong(&states[first - 1], &empty, MOVING); empty = EMPTY)
            first--;
        for (empty = EMPTY; end < to && atomic_compare_exchange_strong(&states[end], &empty, MOVING); empty = EMPTY)
            end++;
    }
    answer = vmm_uffd_zero(board->faults_fd, span->address + first * PAGE, (end - first) * PAGE);
    if (answer == -EEXIST) {
        answer = 0;
        for (uint64_t at = first; at < end && answer == 0; at++)
            answer = place(board, span->address + at * PAGE);
    }
    if (answer == 0) {
        atomic_fetch_add(&board->resident, (int64_t)(end - first));
        atomic_fetch_add(&board->zeroed, (int64_t)(end - first));
    }
    for (uint64_t at = first; at < end; at++)
        atomic_store(&states[at], answer < 0 ? EMPTY : at == page ? RESIDENT | USED : RESIDENT);
    /* Who came meanwhile met a page on its way, and waits. */
    int woken = vmm_uffd_wake(board->faults_fd, span->address + first * PAGE, (end - first) * PAGE);
    return answer < 0 ? answer : woken;
}

static int serve(struct vmm_pager_board *board, uint64_t address)
{
    const struct vmm_pager_span *span = find(board, address);
    if (!span)
        return -EFAULT;
    uint64_t page = (address - span->address) / PAGE;
    _Atomic uint8_t *state = (_Atomic uint8_t *)board->states + span->first + page;
    for (;;) {
        uint8_t now = atomic_load(state);
        int answer;
        switch (now & STATE) {
        case EMPTY:
            answer = zero(board, span, page);
            if (answer == 2)
                continue;
            return answer == 1 ? pass_on(board, span, page) : answer;
        case STAGED:
        case RESIDENT: /* the kernel took the mapping away, as it may with any file */
            /* Nobody else may stage the page between the look and the mapping: it would be mapped and count as not. */
            if (!atomic_compare_exchange_strong(state, &now, MOVING))
                continue;
            if ((now & STATE) == STAGED) {
                atomic_fetch_sub(&board->staged, 1);
                atomic_fetch_add(&board->staged_faults, 1);
            }
            /* One whose mapping the kernel took may have been written before: it counts as written. */
            answer = vmm_uffd_continue(board->faults_fd, address, PAGE, (now & STATE) == STAGED && now & KEPT);
            if (answer == -EFAULT) /* somebody else made a hole in the file */
                answer = place(board, address);
            atomic_store(state, RESIDENT | USED | (now & KEPT));
            return answer < 0 ? answer : vmm_uffd_wake(board->faults_fd, address, PAGE);
        default:
            return pass_on(board, span, page);
        }
    }
}

/* Whose fault it is. A thread of another process is one of the kernel's, which waits for a vCPU's page. */
static void count(struct vmm_pager_board *board, int32_t tid)
{
    int doing = vmm_thread_doing(tid);
    atomic_fetch_add(&board->faults, 1);
    if (doing == VMM_DOING_COPY)
        atomic_fetch_add(&board->copy_faults, 1);
    else if (doing == VMM_DOING_OTHER && syscall(SYS_tgkill, getpid(), tid, 0) == 0)
        atomic_fetch_add(&board->foreign_faults, 1);
}

/* Answers faults until the stop descriptor is readable. 0, or -errno when it cannot go on. */
VMM_API int32_t vmm_pager_serve(intptr_t pointer)
{
    struct vmm_pager_board *board = (struct vmm_pager_board *)pointer;
    struct pollfd wait[2] = {{.fd = board->faults_fd, .events = POLLIN}, {.fd = board->stop_fd, .events = POLLIN}};
    struct uffd_msg messages[16];
    for (;;) {
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (wait[1].revents)
            return 0;
        ssize_t n = read(board->faults_fd, messages, sizeof(messages));
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        for (ssize_t i = 0; i < n / (ssize_t)sizeof(messages[0]); i++) {
            if (messages[i].event != UFFD_EVENT_PAGEFAULT)
                continue;
            count(board, (int32_t)messages[i].arg.pagefault.feat.ptid);
            int answer = serve(board, messages[i].arg.pagefault.address & ~(PAGE - 1));
            if (answer < 0)
                return answer;
        }
    }
}
