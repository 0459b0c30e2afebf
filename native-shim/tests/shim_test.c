#define _GNU_SOURCE
/* Exercises fd.c, kvm.c, memory.c, tap.c and unixstream.c; built with the address and undefined-behaviour sanitizers. Exit code 0: all passed; prints what was skipped. */
#include "tiny_vm.h"

#include "../process.h"
#include "../seccomp.h"
#include "../socket.h"

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

static void eventfd_counts_and_reports_empty(void)
{
    int32_t err = -1;
    uint64_t value = 0;
    intptr_t fd = vmm_eventfd(2, 1, &err);
    CHECK(fd >= 0 && err == 0);
    CHECK(vmm_eventfd_write(fd, 40) == 0);
    CHECK(vmm_eventfd_read(fd, &value) == 0 && value == 42);
    CHECK(vmm_eventfd_read(fd, &value) == -EAGAIN);
    CHECK(vmm_close(fd) == 0);
    CHECK(vmm_close(fd) == -EBADF);
    CHECK(vmm_eventfd_write(-1, 1) == -EBADF);
}

static void errors_carry_errno(void)
{
    int32_t err = 0;
    CHECK(vmm_open("/nonexistent/kvm", &err) == -1 && err == ENOENT);
    intptr_t null = vmm_open("/dev/null", &err);
    CHECK(null >= 0);
    CHECK(vmm_ioctl(null, KVM_GET_API_VERSION, NULL) == -ENOTTY);
    CHECK(vmm_vcpu_create(null, 0, 4096, &err) == -1 && err == ENOTTY);
    CHECK(vmm_map_shared(null, 0, 0, &err) == -1 && err == EINVAL);
    CHECK(vmm_close(null) == 0);
}

static void mappings_are_zero_and_writable(void)
{
    int32_t err;
    intptr_t at = vmm_map_anonymous(8192, &err);
    CHECK(at != -1);
    volatile char *bytes = (volatile char *)at;
    CHECK(bytes[0] == 0 && bytes[8191] == 0);
    bytes[8191] = 1;
    CHECK(vmm_unmap(at, 8192) == 0);
}

/* The other sources have no headers: their only other user is C#. */
intptr_t vmm_memfd(const char *name, uint64_t size, uint32_t huge_shift, int32_t *err);
intptr_t vmm_memory_map(intptr_t fd, uint64_t length, int32_t *err);
int32_t vmm_memory_unmap(intptr_t address, uint64_t length);
int32_t vmm_memory_discard(intptr_t address, uint64_t length);
int32_t vmm_memory_populate(intptr_t address, uint64_t length);
int32_t vmm_mbind(intptr_t address, uint64_t length, int32_t mode, const uint64_t *nodes, uint32_t words);
int32_t vmm_page_nodes(const intptr_t *pages, uint64_t count, int32_t *status);
int64_t vmm_pages_move(const intptr_t *pages, uint64_t count, const int32_t *nodes, int32_t *status);
int32_t vmm_pin_thread(int32_t thread, const uint64_t *cpus, uint32_t words);
int32_t vmm_thread_id(void);

static void discarded_pages_read_as_zeros(void)
{
    int32_t err;
    intptr_t fd = vmm_memfd("shim-test", 8192, 0, &err);
    CHECK(fd >= 0 && err == 0);
    intptr_t at = vmm_memory_map(fd, 8192, &err);
    CHECK(at != -1 && err == 0);
    volatile char *bytes = (volatile char *)at;
    bytes[0] = 1;
    bytes[4096] = 2;
    CHECK(vmm_memory_discard(at, 4096) == 0);
    CHECK(bytes[0] == 0 && bytes[4096] == 2);
    CHECK(vmm_memory_discard(at + 1, 4096) == -EINVAL);
    CHECK(vmm_memory_unmap(at, 8192) == 0);
    CHECK(vmm_close(fd) == 0);
}

/* Every host has node 0 or no NUMA at all (then there is nothing to move and the calls say ENOSYS). */
static void pages_are_populated_found_and_moved(void)
{
    int32_t err, status[3], to[2] = {0, 0}, nowhere[2] = {60, 60};
    uint64_t node0 = 1;
    intptr_t fd = vmm_memfd("shim-test", 12288, 0, &err);
    intptr_t at = vmm_memory_map(fd, 12288, &err);
    intptr_t pages[3] = {at, at + 4096, at + 8192};
    CHECK(at != -1);
    if (vmm_page_nodes(pages, 3, status) == -ENOSYS) {
        printf("no NUMA in this kernel: page placement skipped\n");
    } else {
        CHECK(vmm_page_nodes(pages, 3, status) == 0 && status[0] == -ENOENT && status[2] == -ENOENT);
        CHECK(vmm_mbind(at, 12288, 2, &node0, 1) == 0);
        ((volatile char *)at)[4096] = 7;
        CHECK(vmm_memory_populate(at, 8192) == 0);
        CHECK(vmm_page_nodes(pages, 3, status) == 0 && status[0] == 0 && status[1] == 0 && status[2] == -ENOENT);
        CHECK(vmm_pages_move(pages, 2, to, status) == 0 && status[0] == 0 && status[1] == 0);
        CHECK(vmm_pages_move(pages, 2, nowhere, status) == -ENODEV);
        CHECK(((volatile char *)at)[0] == 0 && ((volatile char *)at)[4096] == 7);
        CHECK(vmm_mbind(at, 12288, 0, NULL, 0) == 0);
    }
    CHECK(vmm_memory_unmap(at, 12288) == 0);
    CHECK(vmm_memory_populate(at, 4096) == -ENOMEM); /* nothing mapped there any more */
    CHECK(vmm_close(fd) == 0);
}

static void *stay(void *arg)
{
    intptr_t *line = arg;
    uint64_t bytes;
    atomic_store((_Atomic intptr_t *)&line[1], vmm_thread_id());
    while (vmm_eventfd_read(line[0], (void *)&bytes) != 0)
        usleep(1000);
    return NULL;
}

static void another_thread_can_be_pinned(void)
{
    int32_t err;
    intptr_t line[2] = {vmm_eventfd(0, 1, &err), 0};
    pthread_t thread;
    cpu_set_t set;
    uint64_t all[16] = {0}, one[16] = {0};
    CHECK(pthread_create(&thread, NULL, stay, line) == 0);
    while (atomic_load((_Atomic intptr_t *)&line[1]) == 0)
        usleep(1000);
    int32_t tid = (int32_t)line[1];
    CHECK(tid != vmm_thread_id());
    CHECK(sched_getaffinity(tid, sizeof(all), (cpu_set_t *)all) == 0);
    int word = 0;
    while (all[word] == 0)
        word++;
    one[word] = all[word] & -all[word];
    CHECK(vmm_pin_thread(tid, one, 16) == 0);
    CPU_ZERO(&set);
    CHECK(sched_getaffinity(tid, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1);
    CHECK(vmm_eventfd_write(line[0], 1) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < 5000 && vmm_pin_thread(tid, one, 16) == 0; i++)
        usleep(1000); /* pthread_join returns while the kernel still puts the thread away */
    CHECK(vmm_pin_thread(tid, one, 16) == -ESRCH);
    CHECK(vmm_close(line[0]) == 0);
}

static void streams_never_block(void)
{
    char folder[] = "/tmp/shim-test-XXXXXX", path[64], link[64], bytes[64], big[200];
    int32_t err;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/s", folder);
    CHECK(vmm_stream_connect(path, &err) == -1 && err == ENOENT);
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    CHECK(vmm_stream_listen(big, 4, &err) == -1 && err == ENAMETOOLONG);
    intptr_t listener = vmm_stream_listen(path, 4, &err);
    CHECK(listener >= 0 && err == 0);
    CHECK(vmm_stream_listen(path, 4, &err) == -1 && err == EADDRINUSE);
    CHECK(vmm_stream_accept(listener, &err) == -1 && err == EAGAIN);
    intptr_t near = vmm_stream_connect(path, &err), far = vmm_stream_accept(listener, &err);
    CHECK(near >= 0 && far >= 0 && err == 0);
    snprintf(link, sizeof link, "%s/l", folder);
    CHECK(symlink(path, link) == 0);
    intptr_t through = vmm_stream_connect(link, &err), itself = vmm_stream_connect_nofollow(path, &err);
    CHECK(through >= 0 && itself >= 0 && err == 0);
    CHECK(vmm_close(through) == 0 && vmm_close(itself) == 0);
    CHECK(vmm_stream_connect_nofollow(link, &err) == -1 && err == ECONNREFUSED);
    CHECK(vmm_stream_connect_nofollow(folder, &err) == -1 && err == ECONNREFUSED);
    CHECK(unlink(link) == 0);
    CHECK(vmm_stream_connect_nofollow(link, &err) == -1 && err == ENOENT);
    CHECK(vmm_stream_receive(near, bytes, 64, 0) == -EAGAIN);
    CHECK(vmm_stream_send(far, "hello", 5) == 5);
    CHECK(vmm_stream_receive(near, bytes, 64, 1) == 5);
    CHECK(vmm_stream_receive(near, bytes, 64, 0) == 5 && memcmp(bytes, "hello", 5) == 0);
    int32_t sent, total = 0;
    while ((sent = vmm_stream_send(near, big, sizeof big)) > 0)
        total += sent;
    CHECK(sent == -EAGAIN && total > 0);
    CHECK(vmm_stream_shutdown(far, 1) == 0);
    CHECK(vmm_stream_receive(near, bytes, 64, 0) == 0);
    CHECK(vmm_close(far) == 0);
    CHECK(vmm_stream_send(near, NULL, 0) == -EPIPE);
    CHECK(vmm_close(near) == 0 && vmm_close(listener) == 0);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    CHECK(vmm_stream_connect(path, &err) == -1 && err == ENOENT);
}

static int open_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void packets_carry_descriptors(void)
{
    int32_t pair[2], got[4], count = -1, err;
    char text[8];
    CHECK(vmm_socket_pair(1, pair) == 0);
    int before = open_fds();
    int32_t sent[3] = {(int32_t)vmm_eventfd(7, 1, &err), 0, 1};
    CHECK(vmm_socket_send(pair[0], "hello", 5, sent, 3, 1000) == 0);
    CHECK(vmm_socket_receive(pair[1], text, sizeof(text), got, 4, &count) == 5 && count == 3 && memcmp(text, "hello", 5) == 0);
    uint64_t value;
    CHECK(vmm_eventfd_read(got[0], &value) == 0 && value == 7);
    CHECK((fcntl(got[0], F_GETFD) & FD_CLOEXEC) != 0);
    for (int i = 0; i < count; i++)
        vmm_close(got[i]);
    CHECK(vmm_socket_receive(pair[1], text, sizeof(text), got, 4, &count) == -EAGAIN && count == 0);

    /* Too many descriptors, or too long: refused, and nothing stays open. */
    CHECK(vmm_socket_send(pair[0], "x", 1, sent, 3, 1000) == 0);
    CHECK(vmm_socket_receive(pair[1], text, sizeof(text), got, 2, &count) == -EMSGSIZE && count == 0);
    CHECK(vmm_socket_send(pair[0], "longer than eight", 17, sent, 2, 1000) == 0);
    CHECK(vmm_socket_receive(pair[1], text, sizeof(text), got, 4, &count) == -EMSGSIZE && count == 0);
    vmm_close(sent[0]);
    CHECK(open_fds() == before);

    char big[4096] = {0};
    int32_t answer = 0;
    for (int i = 0; i < 10000 && answer == 0; i++)
        answer = vmm_socket_send(pair[0], big, sizeof(big), NULL, 0, 10);
    CHECK(answer == -ETIMEDOUT); /* nobody reads: no wait without end */
    CHECK(vmm_socket_send(pair[0], big, 0, NULL, 0, 10) == -EINVAL);
    vmm_close(pair[1]);
    CHECK(vmm_socket_send(pair[0], "x", 1, NULL, 0, 10) == -ECONNRESET); /* what waited was thrown away */
    CHECK(vmm_socket_send(pair[0], "x", 1, NULL, 0, 10) == -EPIPE);
    vmm_close(pair[0]);
}

static void peers_are_known_and_names_are_checked(void)
{
    int32_t err, pid = 0;
    uint32_t uid, gid;
    char path[64], text[4];
    snprintf(path, sizeof(path), "/tmp/vmm-shim-test.%d", (int)getpid());
    intptr_t listener = vmm_socket_bind(path, &err);
    CHECK(listener >= 0);
    CHECK(vmm_socket_connect(path, &err) == -1 && err == ECONNREFUSED);
    CHECK(vmm_socket_listen(listener, 4) == 0);
    intptr_t client = vmm_socket_connect(path, &err), server = vmm_socket_accept(listener, &err);
    CHECK(client >= 0 && server >= 0);
    CHECK(vmm_socket_peer(client, &pid, &uid, &gid) == 0 && pid == getpid() && uid == getuid() && gid == getgid());
    CHECK(vmm_socket_bind(path, &err) == -1 && err == EADDRINUSE);
    vmm_close(server);
    int32_t got[1], count;
    CHECK(vmm_socket_receive(client, text, sizeof(text), got, 1, &count) == 0);
    vmm_close(client);
    vmm_close(listener);
    unlink(path);
    memset(text, 'x', sizeof(text));
    char endless[300];
    memset(endless, 'x', sizeof(endless) - 1);
    endless[299] = 0;
    CHECK(vmm_socket_bind(endless, &err) == -1 && err == ENAMETOOLONG);
}

static void children_get_their_descriptors_and_no_others(void)
{
    int32_t pair[2], pid, err, code, status;
    char text[16] = {0};
    const char *argv[] = {"sh", "-c", "printf hi >&3; [ -e /proc/self/fd/5 ] && exit 9; read x <&4; exit 7", NULL};
    const char *envp[] = {NULL};
    CHECK(vmm_socket_pair(0, pair) == 0);
    int before = open_fds();
    int32_t fds[2] = {pair[1], pair[1]};
    intptr_t child = vmm_spawn("/bin/sh", argv, envp, fds, 2, 0, &pid, &err);
    CHECK(child >= 0 && pid > 0 && getsid(pid) == pid);
    CHECK(vmm_pidfd_wait(child, 100, &code, &status) == 0);
    while (vmm_stream_receive(pair[0], text, sizeof(text), 0) == -EAGAIN)
        usleep(1000);
    CHECK(strcmp(text, "hi") == 0);
    CHECK(vmm_stream_send(pair[0], "\n", 1) == 1);
    CHECK(vmm_pidfd_wait(child, 10000, &code, &status) == 1 && code == CLD_EXITED && status == 7);
    CHECK(vmm_pidfd_signal(child, 9) == -ESRCH);
    vmm_close(child);

    child = vmm_spawn("/bin/sh", argv, envp, fds, 2, 0, &pid, &err);
    CHECK(vmm_pidfd_signal(child, 9) == 0);
    CHECK(vmm_pidfd_wait(child, 10000, &code, &status) == 1 && code == CLD_KILLED && status == 9);
    vmm_close(child);
    CHECK(vmm_spawn("/nonexistent", argv, envp, fds, 2, 0, &pid, &err) == -1 && err == ENOENT);
    CHECK(open_fds() == before);
    vmm_close(pair[0]);
    vmm_close(pair[1]);
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
    int32_t pid = 0, err = 0, code = 0, status = 0;
    if (geteuid() != 0) {
        printf("SKIPPED isolated child: not root\n");
        return;
    }
    intptr_t pidfd = vmm_spawn("/bin/sh", argv, envp, NULL, 0, VMM_SPAWN_ISOLATED, &pid, &err);
    CHECK(pidfd >= 0 && err == 0);
    CHECK(vmm_pidfd_wait(pidfd, 10000, &code, &status) == 1);
    CHECK(code == CLD_EXITED && status == 0);
    CHECK(vmm_close(pidfd) == 0);
}

/* No file can be opened, nor made, from any thread; what was open stays so. */
static void *finds_nothing(void *go)
{
    char byte;
    if (read(*(int *)go, &byte, 1) != 1)
        return NULL;
    return (void *)(intptr_t)(access("/etc", F_OK) < 0 && access("/proc/self", F_OK) < 0 && mkdir("/a", 0700) < 0 && errno == EROFS ? 1 : 0);
}

static void an_empty_root_is_empty_for_every_thread(void)
{
    if (geteuid() != 0) {
        printf("SKIPPED empty root: not root\n");
        return;
    }
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int open_before = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
        pthread_t thread;
        void *nothing = NULL;
        char byte;
        int go[2];
        if (pipe(go) < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
            _exit(1);
        if (pthread_create(&thread, NULL, finds_nothing, &go[0]) != 0)
            _exit(1);
        if (vmm_process_empty_root() != 0)
            _exit(2);
        if (write(go[1], "", 1) != 1 || pthread_join(thread, &nothing) != 0 || nothing == NULL)
            _exit(3);
        _exit(pread(open_before, &byte, 1, 0) == 1 ? 0 : 4);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

/* tap.c has no header either. A network namespace of our own: nothing of the host is touched, and all is gone with the child. */
intptr_t vmm_tap_open(const char *name, int32_t multi_queue, int32_t *err);
int32_t vmm_tap_check(intptr_t fd, char *name);
int32_t vmm_tap_header(intptr_t fd, int32_t bytes);
int32_t vmm_tap_offload(intptr_t fd, uint32_t bits);
int32_t vmm_tap_attach(intptr_t fd, int32_t attach);
int32_t vmm_interface_mtu(const char *name);
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

static void taps_in_a_namespace(void)
{
    int32_t err = 0;
    char name[16];
    CHECK(vmm_tap_open("vmmtap0", 0, &err) == -1 && err == ENODEV);   /* and none was made */
    CHECK(if_nametoindex("vmmtap0") == 0);
    CHECK(vmm_tap_open("a-name-that-is-too-long", 0, &err) == -1 && err == ENAMETOOLONG);
    CHECK(vmm_interface_mtu("vmmtap0") == -ENODEV);
    int quiet = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);    /* of this namespace: no frames but ours; missing without IPv6 */
    CHECK(quiet < 0 || (write(quiet, "1", 1) == 1 && close(quiet) == 0));
    make_tap("vmmtap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 1);
    CHECK(vmm_interface_mtu("vmmtap0") == 1500);
    CHECK(vmm_tap_open("vmmtap0", 1, &err) == -1 && err == EINVAL);    /* one queue only */
    CHECK(vmm_tap_open("lo", 0, &err) == -1 && err == EINVAL);
    intptr_t tap = vmm_tap_open("vmmtap0", 0, &err);
    CHECK(tap >= 0 && err == 0);
    CHECK(vmm_tap_open("vmmtap0", 0, &err) == -1 && err == EBUSY);
    CHECK(vmm_tap_check(tap, name) == 0 && strcmp(name, "vmmtap0") == 0);
    CHECK(vmm_tap_header(tap, 12) == 0 && vmm_tap_header(tap, 4) == -EINVAL);
    CHECK(vmm_tap_offload(tap, 15) == 0 && vmm_tap_offload(tap, 1u << 30) == -EINVAL && vmm_tap_offload(tap, 0) == 0);
    CHECK(vmm_tap_attach(tap, 0) == -EINVAL);
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
    CHECK(vmm_close(tap) == 0);
    CHECK(vmm_tap_check(tap, name) == -EBADF);

    make_tap("vmmtap1", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, 1);
    intptr_t first = vmm_tap_open("vmmtap1", 1, &err), second = vmm_tap_open("vmmtap1", 1, &err);
    CHECK(first >= 0 && second >= 0);
    CHECK(vmm_tap_attach(second, 0) == 0 && vmm_tap_attach(second, 0) == -EINVAL);
    CHECK(vmm_tap_attach(second, 1) == 0 && vmm_tap_write(second, sent, 1) == 1 && sent[0].result == 72);
    CHECK(vmm_close(first) == 0 && vmm_close(second) == 0);
    intptr_t null = open("/dev/null", O_RDWR);
    CHECK(vmm_tap_check(null, name) == -ENOTTY);
    CHECK(vmm_close(null) == 0);
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
    eventfd_counts_and_reports_empty();
    errors_carry_errno();
    mappings_are_zero_and_writable();
    discarded_pages_read_as_zeros();
    pages_are_populated_found_and_moved();
    another_thread_can_be_pinned();
    streams_never_block();
    packets_carry_descriptors();
    peers_are_known_and_names_are_checked();
    children_get_their_descriptors_and_no_others();
    filters_refuse_on_every_thread_and_kill();
    isolated_children_have_their_own_network();
    an_empty_root_is_empty_for_every_thread();
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
