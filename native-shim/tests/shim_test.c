#define _GNU_SOURCE
/* Exercises kvm.c, process.c, seccomp.c and tap.c; built with the address and undefined-behaviour sanitizers. Exit code 0: all passed; prints what was skipped. */
#include "tiny_vm.h"

#include "../process.h"
#include "../seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);        \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

static void errors_carry_errno(void)
{
    int32_t err = 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(null >= 0);
    CHECK(vmm_ioctl(null, KVM_GET_API_VERSION, NULL) == -ENOTTY);
    CHECK(vmm_vcpu_create(null, 0, 4096, &err) == -1 && err == ENOTTY);
    CHECK(vmm_ioctl_fd(null, KVM_CREATE_VM, NULL, &err) == -1 && err == ENOTTY);
    CHECK(close(null) == 0);
}

static int open_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Whether the child has ended in time, and how: a CLD_ code and its status. */
static int ended(intptr_t pidfd, int timeout_ms, int *code, int *status)
{
    struct pollfd end = {.fd = (int)pidfd, .events = POLLIN};
    siginfo_t info = {0};
    if (poll(&end, 1, timeout_ms) != 1)
        return 0;
    CHECK(waitid((idtype_t)3 /* P_PIDFD */, (id_t)pidfd, &info, WEXITED) == 0);
    *code = info.si_code;
    *status = info.si_status;
    return 1;
}

static void children_get_their_descriptors_and_no_others(void)
{
    int pair[2], code, status;
    int32_t pid, err;
    char text[16] = {0};
    const char *argv[] = {"sh", "-c", "printf hi >&3; [ -e /proc/self/fd/5 ] && exit 9; read x <&4; exit 7", NULL};
    const char *envp[] = {NULL};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    int before = open_fds();
    int32_t fds[2] = {pair[1], pair[1]};
    intptr_t child = vmm_spawn("/bin/sh", argv, envp, fds, 2, -1, 0, NULL, NULL, &pid, &err);
    CHECK(child >= 0 && pid > 0 && getsid(pid) == pid);
    CHECK(!ended(child, 100, &code, &status));
    CHECK(recv(pair[0], text, sizeof(text), 0) == 2 && strcmp(text, "hi") == 0);
    CHECK(send(pair[0], "\n", 1, 0) == 1);
    CHECK(ended(child, 10000, &code, &status) && code == CLD_EXITED && status == 7);
    close((int)child);
    CHECK(vmm_spawn("/nonexistent", argv, envp, fds, 2, -1, 0, NULL, NULL, &pid, &err) == -1 && err == ENOENT);
    CHECK(open_fds() == before);
    close(pair[0]);
    close(pair[1]);
}

/* What it says goes where it was told to; when nobody reads any more, saying it does not kill. */
static void children_have_their_own_standard_error(void)
{
    int pair[2], code, status;
    int32_t pid, err;
    char text[16] = {0};
    const char *argv[] = {"sh", "-c", "echo one >&2; read x <&3; echo two >&2; exit 5", NULL}, *envp[] = {NULL};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    int in[2];
    CHECK(pipe2(in, O_CLOEXEC) == 0);
    int32_t fds[1] = {in[0]};
    intptr_t child = vmm_spawn("/bin/sh", argv, envp, fds, 1, pair[1], 0, NULL, NULL, &pid, &err);
    CHECK(child >= 0 && recv(pair[0], text, sizeof(text), 0) == 4 && strcmp(text, "one\n") == 0);
    close(pair[0]);
    close(pair[1]);
    CHECK(write(in[1], "\n", 1) == 1);
    CHECK(ended(child, 10000, &code, &status) && code == CLD_EXITED && status == 5);
    close((int)child);
    close(in[0]);
    close(in[1]);
}

struct race {
    struct tiny_vm vm;
    atomic_long requested, seen;
    atomic_int stop, bad;
};

static void *race_runner(void *argument)
{
    struct race *race = argument;
    while (!atomic_load(&race->stop)) {
        int32_t answer = vmm_vcpu_run(race->vm.vcpu);
        if (answer == -EINTR) {
            atomic_store(&race->seen, atomic_load(&race->requested));
        } else if (answer != 0) {
            atomic_store(&race->bad, -answer);
            break;
        }
    }
    return NULL;
}

/* The guest never stops by itself: a lost kick leaves the runner inside KVM_RUN, and the deadline reports it. */
static void no_kick_is_lost(const char *what, const void *code, size_t length, long kicks)
{
    struct race race = {0};
    pthread_t runner;
    CHECK(tiny_start(&race.vm, 3, code, length) == 0);
    CHECK(vmm_vcpu_kick(race.vm.vcpu) == 0);
    CHECK(vmm_vcpu_run(race.vm.vcpu) == -EINTR);
    CHECK(pthread_create(&runner, NULL, race_runner, &race) == 0);
    unsigned random = 1;
    for (long i = 1; i <= kicks; i++) {
        random = random * 1103515245u + 12345u;
        for (volatile unsigned spin = random >> 22; spin > 0; spin--) {
        }
        atomic_store(&race.requested, i);
        CHECK(vmm_vcpu_kick(race.vm.vcpu) == 0);
        time_t deadline = time(NULL) + 15;
        while (atomic_load(&race.seen) < i) {
            CHECK(atomic_load(&race.bad) == 0);
            if (time(NULL) > deadline) {
                fprintf(stderr, "%s: kick %ld of %ld was lost\n", what, i, kicks);
                exit(1);
            }
            sched_yield();
        }
    }
    atomic_store(&race.stop, 1);
    CHECK(vmm_vcpu_kick(race.vm.vcpu) == 0);
    CHECK(pthread_join(runner, NULL) == 0);
    CHECK(vmm_vcpu_kick(race.vm.vcpu) == 0); /* nobody runs it: remembered, no signal */
    tiny_stop(&race.vm);
    printf("%s: %ld kicks, none lost\n", what, kicks);
}

static intptr_t compile_test_filter(void)
{
    int32_t err = -1;
    intptr_t builder = vmm_seccomp_create(SECCOMP_RET_ALLOW, &err);
    CHECK(builder != -1 && err == 0);
    struct vmm_seccomp_test unix_only = {.argument = 0, .mask = ~0ull, .value = AF_INET};
    CHECK(vmm_seccomp_add(builder, "socket", SECCOMP_RET_ERRNO | EPERM, &unix_only, 1) == 0);
    CHECK(vmm_seccomp_add(builder, "getppid", SECCOMP_RET_KILL_PROCESS, NULL, 0) == 0);
    CHECK(vmm_seccomp_add(builder, "no_such_call", SECCOMP_RET_KILL_PROCESS, NULL, 0) == -ENOENT);
    CHECK(vmm_seccomp_add(builder, "read", SECCOMP_RET_KILL_PROCESS, NULL, 7) == -EINVAL);
    intptr_t program = vmm_seccomp_compile(builder, &err);
    CHECK(program != -1 && err == 0 && vmm_seccomp_length(program) > 4);
    vmm_seccomp_discard(builder);
    return program;
}

static void *sees_the_filter(void *unused)
{
    (void)unused;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return (void *)(intptr_t)(fd >= 0 && socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM ? 1 : 0);
}

/* In a child, for a filter is for good. */
static void filters_refuse_on_every_thread_and_kill(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        pthread_t thread;
        void *refused = NULL;
        intptr_t program = compile_test_filter();
        if (vmm_seccomp_load(program, 1, 1) != 0 || pthread_create(&thread, NULL, sees_the_filter, NULL) != 0 || pthread_join(thread, &refused) != 0 || refused == NULL)
            _exit(1);
        vmm_seccomp_free(program);
        syscall(SYS_getppid);
        _exit(2);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

/* The child lists its network: its own has a loopback and nothing else. */
static void isolated_children_have_their_own_network(void)
{
    const char *argv[] = {"/bin/sh", "-c", "test $(grep -c : /proc/self/net/dev) = 1", NULL}, *envp[] = {"PATH=/bin:/usr/bin", NULL};
    int32_t pid = 0, err = 0;
    int code = 0, status = 0;
    if (geteuid() != 0) {
        printf("SKIPPED isolated child: not root\n");
        return;
    }
    intptr_t pidfd = vmm_spawn("/bin/sh", argv, envp, NULL, 0, -1, VMM_SPAWN_ISOLATED, NULL, NULL, &pid, &err);
    CHECK(pidfd >= 0 && err == 0);
    CHECK(ended(pidfd, 10000, &code, &status) && code == CLD_EXITED && status == 0);
    CHECK(close((int)pidfd) == 0);
}

/* The folder is at another place, read only if it is to be, and nothing is seen of that here. */
static void children_see_a_folder_at_another_place(void)
{
    const char *argv[] = {"/bin/sh", "-c", "test -e /tmp/inside && ! echo x 2>/dev/null >/tmp/more && grep -q ' /tmp ro,nosuid,nodev' /proc/self/mountinfo", NULL};
    const char *writes[] = {"/bin/sh", "-c", "test -e /tmp/inside && echo x >/tmp/more", NULL}, *envp[] = {"PATH=/bin:/usr/bin", NULL};
    char folder[] = "/tmp/shim-folder-XXXXXX", inside[64], more[64];
    uint32_t user = geteuid() == 0 ? 0 : VMM_SPAWN_OWN_USER;
    int32_t pid = 0, err = 0;
    int code = 0, status = 0;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(inside, sizeof(inside), "%s/inside", folder);
    snprintf(more, sizeof(more), "%s/more", folder);
    int fd = open(inside, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && close(fd) == 0);
    intptr_t pidfd = vmm_spawn("/bin/sh", argv, envp, NULL, 0, -1, VMM_SPAWN_FOLDER | VMM_SPAWN_FOLDER_READ_ONLY | user, folder, "/tmp", &pid, &err);
    CHECK(pidfd >= 0 && ended(pidfd, 10000, &code, &status) && code == CLD_EXITED && status == 0);
    CHECK(close((int)pidfd) == 0 && access(more, F_OK) < 0);
    pidfd = vmm_spawn("/bin/sh", writes, envp, NULL, 0, -1, VMM_SPAWN_FOLDER | VMM_SPAWN_OWN_USER, folder, "/tmp", &pid, &err);
    CHECK(pidfd >= 0 && ended(pidfd, 10000, &code, &status) && code == CLD_EXITED && status == 0);
    CHECK(close((int)pidfd) == 0 && unlink(more) == 0 && unlink(inside) == 0 && rmdir(folder) == 0);
    CHECK(vmm_spawn("/bin/sh", writes, envp, NULL, 0, -1, VMM_SPAWN_FOLDER | user, folder, "/tmp", &pid, &err) == -1 && err == ENOENT);
}

/* tap.c has no header either. A network namespace of our own: nothing of the host is touched, and all is gone with the child. */
struct vmm_tap_frame { intptr_t vectors; int32_t count, room; int64_t result; };
int32_t vmm_tap_read(intptr_t fd, struct vmm_tap_frame *frames, int32_t count);
int32_t vmm_tap_write(intptr_t fd, struct vmm_tap_frame *frames, int32_t count);

static void make_tap(const char *name, int flags, int up)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    strcpy(request.ifr_name, name);
    request.ifr_flags = (short)flags;
    int fd = open("/dev/net/tun", O_RDWR);
    CHECK(fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETPERSIST, 1) == 0);
    close(fd);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    request.ifr_flags = IFF_UP;
    CHECK(s >= 0 && (!up || ioctl(s, SIOCSIFFLAGS, &request) == 0));
    close(s);
}

/* Frames of so many bytes out of an interface. */
static void send_to_tap(const char *name, int count, size_t length)
{
    struct sockaddr_ll to;
    memset(&to, 0, sizeof(to));
    to.sll_family = AF_PACKET;
    to.sll_ifindex = (int)if_nametoindex(name);
    char bytes[256] = {0};
    memset(bytes, 0xff, 6);
    bytes[12] = (char)0x88, bytes[13] = (char)0xb5;
    int s = socket(AF_PACKET, SOCK_RAW, 0);
    CHECK(s >= 0 && length <= sizeof(bytes));
    for (int i = 0; i < count; i++)
        CHECK(sendto(s, bytes, length, 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)length);
    close(s);
}

static int open_tap(const char *name)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    strcpy(request.ifr_name, name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    int header = 12, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    CHECK(fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETVNETHDRSZ, &header) == 0);
    return fd;
}

static void taps_in_a_namespace(void)
{
    int quiet = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);    /* of this namespace: no frames but ours; missing without IPv6 */
    CHECK(quiet < 0 || (write(quiet, "1", 1) == 1 && close(quiet) == 0));
    make_tap("vmmtap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 1);
    int tap = open_tap("vmmtap0");
    char frame[12 + 60] = {0};
    memset(frame + 12, 0xff, 6);
    frame[12 + 12] = 0x08, frame[12 + 13] = 0x06;
    struct iovec vectors[2] = {{frame, 12}, {frame + 12, 60}};
    struct iovec whole = {frame, 72};
    struct vmm_tap_frame sent[4] = {{(intptr_t)vectors, 2, 0, 0}, {(intptr_t)vectors, 1, 0, 0}, {(intptr_t)vectors, 0, 0, 0}, {(intptr_t)&whole, 1, 0, 0}};
    CHECK(vmm_tap_write(tap, sent, 4) == 4);    /* the refused ones do not hold the others up */
    CHECK(sent[0].result == 72 && sent[1].result == -EINVAL && sent[2].result == -EMSGSIZE && sent[3].result == 72);
    char in[2][2048];
    struct iovec rooms[2] = {{in[0], sizeof(in[0])}, {in[1], sizeof(in[1])}};
    struct vmm_tap_frame got[2] = {{(intptr_t)&rooms[0], 1, 2048, 0}, {(intptr_t)&rooms[1], 1, 2048, 0}};
    CHECK(vmm_tap_read(tap, got, 2) == 0 && got[0].result == -EAGAIN);
    int32_t arrived = 0;
    for (int i = 0; i < 5000 && arrived == 0; i++, usleep(1000)) {     /* a link that is up drops frames until its queue is at work */
        send_to_tap("vmmtap0", 1, 100);
        arrived = vmm_tap_read(tap, got, 2);
    }
    CHECK(arrived == 1);
    send_to_tap("vmmtap0", 3, 100);
    got[0].room = 99;
    CHECK(vmm_tap_read(tap, got, 2) == 1 && got[0].result == 12 + 100);     /* longer than its room: the last of its batch */
    got[0].room = 112;
    CHECK(vmm_tap_read(tap, got, 2) == 2 && got[1].result == 12 + 100);
    CHECK(vmm_tap_read(tap, got, 2) == 0 && got[0].result == -EAGAIN);
    CHECK(close(tap) == 0);
}

static void taps_move_frames(void)
{
    if (access("/dev/net/tun", R_OK | W_OK) != 0) {
        printf("SKIPPED taps: no usable /dev/net/tun\n");
        return;
    }
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (unshare(CLONE_NEWNET) != 0) {
            printf("SKIPPED taps: no network namespace of our own (errno %d)\n", errno);
            exit(0);
        }
        taps_in_a_namespace();
        exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    static const unsigned char spin[] = {0xeb, 0xfe}, spin_out[] = {0xe6, 0x80, 0xeb, 0xfc};
    alarm(120); /* a hang is a failure too: SIGALRM ends us */
    errors_carry_errno();
    children_get_their_descriptors_and_no_others();
    children_have_their_own_standard_error();
    filters_refuse_on_every_thread_and_kill();
    isolated_children_have_their_own_network();
    children_see_a_folder_at_another_place();
    taps_move_frames();
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("SKIPPED kick race: no usable /dev/kvm\n");
        return 0;
    }
    no_kick_is_lost("spinning guest", spin, sizeof(spin), 3000);
    no_kick_is_lost("exiting guest", spin_out, sizeof(spin_out), 3000);
    printf("PASSED\n");
    return 0;
}
