/* Guest memory: memfds, their mappings, NUMA policy; and the placement of threads. Raw system calls where glibc has no wrapper. */
#define _GNU_SOURCE
#include "vmmshim.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* size bytes of memory named name; huge_shift is 0, 21 or 30 (the MFD_HUGE_SHIFT encoding of memfd_create(2)). */
VMM_API intptr_t vmm_memfd(const char *name, uint64_t size, uint32_t huge_shift, int32_t *err)
{
    unsigned flags = MFD_CLOEXEC;
    if (huge_shift != 0) {
        flags |= MFD_HUGETLB | (huge_shift << 26);
    }
    int fd = memfd_create(name, flags);
    if (fd >= 0 && ftruncate(fd, (off_t)size) != 0) {
        *err = errno;
        close(fd);
        return -1;
    }
    *err = fd < 0 ? errno : 0;
    return fd;
}

VMM_API intptr_t vmm_memory_map(intptr_t fd, uint64_t length, int32_t *err)
{
    void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, (int)fd, 0);
    if (at == MAP_FAILED) {
        *err = errno;
        return -1;
    }
    /* Guest memory never belongs into a core dump of the VMM. */
    (void)madvise(at, length, MADV_DONTDUMP);
    *err = 0;
    return (intptr_t)at;
}

/* Addresses for mappings that must lie side by side: nothing is behind them yet, and nobody else gets them. Aligned to align, a power of two. */
VMM_API intptr_t vmm_memory_reserve(uint64_t length, uint64_t align, int32_t *err)
{
    char *at = mmap(NULL, length + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        *err = errno;
        return -1;
    }
    char *aligned = (char *)(((uintptr_t)at + align - 1) & ~(uintptr_t)(align - 1));
    if (aligned > at)
        (void)munmap(at, (size_t)(aligned - at));
    if (aligned + length < at + length + align)
        (void)munmap(aligned + length, (size_t)(at + align - aligned));
    *err = 0;
    return (intptr_t)aligned;
}

/* As vmm_memory_map, at an address inside a reservation. */
VMM_API int32_t vmm_memory_map_reserved(intptr_t fd, intptr_t address, uint64_t length)
{
    if (mmap((void *)address, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, (int)fd, 0) == MAP_FAILED)
        return -errno;
    (void)madvise((void *)address, length, MADV_DONTDUMP);
    return 0;
}

/* Makes the range a mere reservation again. */
VMM_API int32_t vmm_memory_vacate(intptr_t address, uint64_t length)
{
    void *at = mmap((void *)address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? -errno : 0;
}

VMM_API int32_t vmm_memory_unmap(intptr_t address, uint64_t length)
{
    return munmap((void *)address, length) == 0 ? 0 : -errno;
}

/* mbind(2); nodes is a bit mask of 64-bit words. */
VMM_API int32_t vmm_mbind(intptr_t address, uint64_t length, int32_t mode, const uint64_t *nodes, uint32_t words)
{
    return syscall(SYS_mbind, address, length, mode, nodes, (unsigned long)words * 64 + 1, 0) == 0 ? 0 : -errno;
}

/* Where pages lie: status[i] becomes the node of the page at pages[i], or -errno when it has none yet. */
VMM_API int32_t vmm_page_nodes(const intptr_t *pages, uint64_t count, int32_t *status)
{
    return syscall(SYS_move_pages, 0, count, pages, NULL, status, 0) == 0 ? 0 : -errno;
}

/* Moves pages of this process to a node: those mapped by it alone (MPOL_MF_MOVE). How many stayed where they were, as far as the kernel counts; ask
   vmm_page_nodes for the truth. -errno when it gave up: -ENOMEM also when the node is full. */
VMM_API int64_t vmm_pages_move(const intptr_t *pages, uint64_t count, const int32_t *nodes, int32_t *status)
{
    long stayed = syscall(SYS_move_pages, 0, count, pages, nodes, status, 2 /* MPOL_MF_MOVE */);
    return stayed >= 0 ? stayed : -errno;
}

/* Brings the pages of a range into being, from where its policy says; they keep their content. -errno when that cannot be: no SIGBUS (Linux 5.14). */
VMM_API int32_t vmm_memory_populate(intptr_t address, uint64_t length)
{
    return madvise((void *)address, length, 23 /* MADV_POPULATE_WRITE */) == 0 ? 0 : -errno;
}

/* Gives whole pages of a shared mapping of a memfd back to the host: the range reads as zeros and is filled again on the next touch. */
VMM_API int32_t vmm_memory_discard(intptr_t address, uint64_t length)
{
    return madvise((void *)address, length, MADV_REMOVE) == 0 ? 0 : -errno;
}

/* Lets a thread of this process (0: the calling one) run on the CPUs of the mask only. */
VMM_API int32_t vmm_pin_thread(int32_t thread, const uint64_t *cpus, uint32_t words)
{
    return sched_setaffinity(thread, (size_t)words * 8, (const cpu_set_t *)cpus) == 0 ? 0 : -errno;
}

/* The calling thread's number, as /proc/PID/task has it. */
VMM_API int32_t vmm_thread_id(void)
{
    return (int32_t)syscall(SYS_gettid);
}
