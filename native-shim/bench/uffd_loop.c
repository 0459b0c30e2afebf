/*
 * What a page fault costs that a bare program answers: one thread touches pages of a memfd, another reads the faults and answers each. Usage: uffd_loop zero|copy|continue [pages]
 * Prints nanoseconds for a page. perf/ compares the pager with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

static int faults;
static const char *how;
static char source[PAGE] __attribute__((aligned(PAGE)));

static void must(int answer, const char *what)
{
    if (answer < 0) {
        fprintf(stderr, "uffd_loop: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void *answer(void *unused)
{
    (void)unused;
    for (;;) {
        struct uffd_msg message;
        struct pollfd wait = {.fd = faults, .events = POLLIN};
        must(poll(&wait, 1, -1), "poll");
        if (read(faults, &message, sizeof(message)) != sizeof(message))
            continue;
        uint64_t at = message.arg.pagefault.address & ~(PAGE - 1);
        if (*how == 'z') {
            struct uffdio_zeropage zero = {.range = {.start = at, .len = PAGE}};
            must(ioctl(faults, UFFDIO_ZEROPAGE, &zero), "UFFDIO_ZEROPAGE");
        } else if (how[2] == 'p') {
            struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)source, .len = PAGE};
            must(ioctl(faults, UFFDIO_COPY, &copy), "UFFDIO_COPY");
        } else {
            struct uffdio_continue map = {.range = {.start = at, .len = PAGE}};
            must(ioctl(faults, UFFDIO_CONTINUE, &map), "UFFDIO_CONTINUE");
        }
    }
    return NULL;
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int main(int argc, char **argv)
{
    how = argc > 1 ? argv[1] : "zero";
    uint64_t pages = argc > 2 ? strtoull(argv[2], NULL, 10) : 8192;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), memory = memfd_create("uffd_loop", MFD_CLOEXEC);
    must(device, "/dev/userfaultfd");
    must(memory, "memfd_create");
    faults = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    must(faults, "USERFAULTFD_IOC_NEW");
    must(ftruncate(memory, (off_t)(pages * PAGE)), "ftruncate");
    volatile char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (at == MAP_FAILED)
        must(-1, "mmap");
    if (how[2] == 'n') {
        for (uint64_t i = 0; i < pages; i++)
            at[i * PAGE] = 1;
        must(madvise((void *)at, pages * PAGE, MADV_DONTNEED), "MADV_DONTNEED");
    }
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM};
    must(ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
    struct uffdio_register all = {.range = {.start = (uintptr_t)at, .len = pages * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
    must(ioctl(faults, UFFDIO_REGISTER, &all), "UFFDIO_REGISTER");
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, NULL) != 0)
        must(-1, "pthread_create");
    int64_t begin = now();
    for (uint64_t i = 0; i < pages; i++)
        at[i * PAGE] = 2;
    printf("%.1f\n", (double)(now() - begin) / (double)pages);
    return 0;
}
