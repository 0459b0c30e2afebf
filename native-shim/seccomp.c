/*
 * System call filters. libseccomp turns names and conditions into a BPF program; the program is kept and loaded with seccomp(2) itself, so that one
 * compilation serves any number of threads. The library is opened at first use: programs that never filter do not pay for loading it.
 */
#define _GNU_SOURCE
#include "seccomp.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_TESTS 6

static struct {
    __typeof__(&seccomp_init) init;
    __typeof__(&seccomp_release) release;
    __typeof__(&seccomp_attr_set) attr_set;
    __typeof__(&seccomp_syscall_resolve_name) resolve_name;
    __typeof__(&seccomp_rule_add_array) rule_add_array;
    __typeof__(&seccomp_export_bpf) export_bpf;
} lib;
static pthread_once_t open_once = PTHREAD_ONCE_INIT;
static int open_errno;

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL)
        open_errno = ELIBBAD;
    return found;
}

static void open_library(void)
{
    void *library = dlopen("libseccomp.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        open_errno = ELIBACC;
        return;
    }
    lib.init = (__typeof__(lib.init))symbol(library, "seccomp_init");
    lib.release = (__typeof__(lib.release))symbol(library, "seccomp_release");
    lib.attr_set = (__typeof__(lib.attr_set))symbol(library, "seccomp_attr_set");
    lib.resolve_name = (__typeof__(lib.resolve_name))symbol(library, "seccomp_syscall_resolve_name");
    lib.rule_add_array = (__typeof__(lib.rule_add_array))symbol(library, "seccomp_rule_add_array");
    lib.export_bpf = (__typeof__(lib.export_bpf))symbol(library, "seccomp_export_bpf");
}

/* An empty filter: calls without a rule get default_action (SECCOMP_RET_…); calls of another architecture's numbering end the process. ELIBACC: no libseccomp.so.2. */
VMM_API intptr_t vmm_seccomp_create(uint32_t default_action, int32_t *err)
{
    pthread_once(&open_once, open_library);
    *err = open_errno;
    if (open_errno != 0)
        return -1;
    scmp_filter_ctx context = lib.init(default_action);
    if (context == NULL) {
        *err = EINVAL;
        return -1;
    }
    int answer = lib.attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (answer == 0)
        /* A search tree instead of a chain of comparisons (libseccomp 2.5); without it the filter is slower, not weaker. */
        (void)lib.attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (answer < 0) {
        lib.release(context);
        *err = -answer;
        return -1;
    }
    return (intptr_t)context;
}

/* A rule; all tests must hold. -ENOENT: no call of that name on this architecture, or none that the library knows. */
VMM_API int32_t vmm_seccomp_add(intptr_t builder, const char *call, uint32_t action, const struct vmm_seccomp_test *tests, uint32_t count)
{
    struct scmp_arg_cmp compare[MAX_TESTS];

    if (count > MAX_TESTS)
        return -EINVAL;
    int number = lib.resolve_name(call);
    if (number < 0)
        return -ENOENT;
    for (uint32_t i = 0; i < count; i++)
        compare[i] = (struct scmp_arg_cmp){.arg = (unsigned)tests[i].argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = tests[i].mask, .datum_b = tests[i].value};
    return lib.rule_add_array((scmp_filter_ctx)builder, action, number, count, compare);
}

VMM_API void vmm_seccomp_discard(intptr_t builder)
{
    lib.release((scmp_filter_ctx)builder);
}

/* The BPF program of a filter. The builder stays. */
VMM_API intptr_t vmm_seccomp_compile(intptr_t builder, int32_t *err)
{
    struct sock_fprog *program = NULL;
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0) {
        *err = errno;
        return -1;
    }
    int answer = lib.export_bpf((scmp_filter_ctx)builder, fd);
    off_t size = lseek(fd, 0, SEEK_CUR);
    *err = answer < 0 ? -answer : 0;
    if (answer == 0 && (size <= 0 || size % (off_t)sizeof(struct sock_filter) != 0 || size / (off_t)sizeof(struct sock_filter) > BPF_MAXINSNS))
        *err = E2BIG;
    if (*err == 0) {
        program = malloc(sizeof(*program) + (size_t)size);
        *err = program == NULL ? ENOMEM : 0;
    }
    if (program != NULL) {
        program->len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
        program->filter = (struct sock_filter *)(program + 1);
        if (pread(fd, program->filter, (size_t)size, 0) != size) {
            *err = EIO;
            free(program);
        }
    }
    close(fd);
    return *err == 0 ? (intptr_t)program : -1;
}

/*
 * Puts the filter on the calling thread, or on all threads; it stays on them and on what they start, and adds to those that are there. With logged the kernel's audit log
 * tells of the calls that it refuses. -ESRCH: a thread has a filter that the caller lacks.
 */
VMM_API int32_t vmm_seccomp_load(intptr_t program, int32_t whole_process, int32_t logged)
{
    unsigned flags = (whole_process ? SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH : 0) | (logged ? SECCOMP_FILTER_FLAG_LOG : 0);

    /* Without it a filter needs CAP_SYS_ADMIN; TSYNC gives it to the other threads, too. */
    if (whole_process && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, (struct sock_fprog *)program) < 0 ? -errno : 0;
}

/* Length in BPF instructions. */
VMM_API int32_t vmm_seccomp_length(intptr_t program)
{
    return ((struct sock_fprog *)program)->len;
}

VMM_API int32_t vmm_seccomp_free(intptr_t program)
{
    free((void *)program);
    return 0;
}
