/* KVM: ioctls, the run page, and kicking a vCPU out of KVM_RUN. */
#include "kvm.h"
#include "threads.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The .NET runtime uses SIGRTMIN itself (thread suspension); this one is ours. */
#define KICK_SIGNAL (SIGRTMIN + 4)

struct vmm_vcpu {
    int fd;
    struct kvm_run *run;
    size_t map_length;
    _Atomic pid_t runner;
};

/* Run page of the vCPU this thread is running. Initial-exec: no lazy TLS allocation inside the signal handler. */
static __thread struct kvm_run *volatile own_run __attribute__((tls_model("initial-exec")));
static __thread pid_t own_tid __attribute__((tls_model("initial-exec")));

static pthread_once_t install_once = PTHREAD_ONCE_INIT;
static int install_errno;

static intptr_t answer_fd(int fd, int32_t *err)
{
    *err = fd < 0 ? errno : 0;
    return fd;
}

VMM_API int32_t vmm_ioctl(intptr_t fd, uint64_t request, void *argument)
{
    int answer = ioctl((int)fd, (unsigned long)request, argument);
    return answer < 0 ? -errno : answer;
}

VMM_API intptr_t vmm_ioctl_fd(intptr_t fd, uint64_t request, void *argument, int32_t *err)
{
    return answer_fd(ioctl((int)fd, (unsigned long)request, argument), err);
}

/* Covers a kick signal sent by anyone, at any moment of vmm_vcpu_run: KVM_RUN that follows returns at once. */
static void on_kick(int signal_number)
{
    (void)signal_number;
    struct kvm_run *run = own_run;
    if (run != NULL) {
        __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    }
}

static void install_handler(void)
{
    /* No SA_RESTART: KVM_RUN has to come back. SA_ONSTACK: the runtime gives its threads a signal stack. */
    struct sigaction action = {.sa_handler = on_kick, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    install_errno = sigaction(KICK_SIGNAL, &action, NULL) < 0 ? errno : 0;
}

/* Once per thread: know the thread id, and let the kick signal in whatever mask the thread was born with. */
static void adopt_thread(void)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    own_tid = (pid_t)syscall(SYS_gettid);
    vmm_thread_does(VMM_DOING_GUEST);
}

VMM_API intptr_t vmm_vcpu_create(intptr_t vm, uint64_t id, uint64_t map_length, int32_t *err)
{
    pthread_once(&install_once, install_handler);
    if (install_errno != 0) {
        *err = install_errno;
        return -1;
    }
    struct vmm_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (vcpu == NULL) {
        *err = ENOMEM;
        return -1;
    }
    vcpu->fd = ioctl((int)vm, KVM_CREATE_VCPU, id);
    if (vcpu->fd < 0) {
        *err = errno;
        free(vcpu);
        return -1;
    }
    vcpu->map_length = map_length;
    vcpu->run = mmap(NULL, map_length, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED) {
        *err = errno;
        close(vcpu->fd);
        free(vcpu);
        return -1;
    }
    *err = 0;
    return (intptr_t)vcpu;
}

VMM_API int32_t vmm_vcpu_destroy(intptr_t handle)
{
    struct vmm_vcpu *vcpu = (struct vmm_vcpu *)handle;
    int answer = munmap(vcpu->run, vcpu->map_length) == 0 ? 0 : -errno;
    if (close(vcpu->fd) < 0 && answer == 0) {
        answer = -errno;
    }
    free(vcpu);
    return answer;
}

VMM_API int32_t vmm_vcpu_ioctl(intptr_t handle, uint64_t request, void *argument)
{
    return vmm_ioctl(((struct vmm_vcpu *)handle)->fd, request, argument);
}

VMM_API intptr_t vmm_vcpu_fd(intptr_t handle)
{
    return ((struct vmm_vcpu *)handle)->fd;
}

VMM_API intptr_t vmm_vcpu_map_dirty_ring(intptr_t handle, uint64_t length, int32_t *err)
{
    struct vmm_vcpu *vcpu = (struct vmm_vcpu *)handle;
    void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
    *err = at == MAP_FAILED ? errno : 0;
    return at == MAP_FAILED ? -1 : (intptr_t)at;
}

VMM_API intptr_t vmm_vcpu_run_page(intptr_t handle)
{
    return (intptr_t)((struct vmm_vcpu *)handle)->run;
}

/*
 * One KVM_RUN: 0 (see exit_reason), -EINTR (kicked or another signal), or -errno.
 *
 * Why no kick is lost: the kicker stores immediate_exit, then looks for a runner; we store the runner, then KVM_RUN
 * looks at immediate_exit. Both are sequentially consistent, so either KVM_RUN sees the request or the kicker sees us
 * and sends the signal. The request is taken back only when -EINTR is about to be answered: a kick that meets another
 * exit stays and ends the next run.
 */
VMM_API int32_t vmm_vcpu_run(intptr_t handle)
{
    struct vmm_vcpu *vcpu = (struct vmm_vcpu *)handle;
    int answer;

    if (own_tid == 0) {
        adopt_thread();
    }
    own_run = vcpu->run;
    atomic_store(&vcpu->runner, own_tid);
    do {
        /* EAGAIN: a vCPU that waited for SIPI was woken; run again. A kick still ends it: immediate_exit is looked at first. */
        answer = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
    } while (answer == -EAGAIN);
    atomic_store(&vcpu->runner, 0);
    own_run = NULL;
    if (answer == -EINTR) {
        __atomic_exchange_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    }
    return answer;
}

/* Any thread: makes the run in progress, or else the next one, end with -EINTR. Kicks that meet are answered once. */
VMM_API int32_t vmm_vcpu_kick(intptr_t handle)
{
    struct vmm_vcpu *vcpu = (struct vmm_vcpu *)handle;

    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pid_t runner = atomic_load(&vcpu->runner);
    if (runner == 0) {
        return 0;
    }
    /* ESRCH: the thread left the run and ended meanwhile; the stored request is enough. */
    return syscall(SYS_tgkill, getpid(), runner, KICK_SIGNAL) == 0 || errno == ESRCH ? 0 : -errno;
}
