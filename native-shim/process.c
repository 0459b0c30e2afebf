/* Child processes. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_FD 3

/* The mounts of their own of a child: everything is prepared before fork, the child makes system calls only. */
struct folder {
    const char *path, *at;
    int tree; /* the folder as a mount of its own, -1: the child makes it */
    char user[32], group[32];
};

/* mount(2)'s new calls, which the C library of Debian 12 declares beside conflicting headers. */
struct mount_flags {
    uint64_t set, clear, propagation, userns;
};

static int open_tree_of(const char *path)
{
    return (int)syscall(SYS_open_tree, AT_FDCWD, path, 1u /* OPEN_TREE_CLONE */ | (unsigned)O_CLOEXEC);
}

static int write_line(const char *path, const char *line)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, line, strlen(line));
    int failure = errno;
    close(fd);
    errno = failure;
    return written < 0 ? -1 : 0;
}

/* Async-signal-safe. What is mounted under the folder is not there: open_tree without AT_RECURSIVE. */
static int mount_folder(const struct folder *folder, uint32_t flags)
{
    struct mount_flags attributes = {.set = 2 | 4 /* MOUNT_ATTR_NOSUID, _NODEV */};
    int tree;

    /* Of a process that hardened itself, /proc/self would be root's. */
    if ((flags & VMM_SPAWN_OWN_USER) != 0 &&
        (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || unshare(CLONE_NEWUSER) < 0 || write_line("/proc/self/setgroups", "deny") < 0 || write_line("/proc/self/uid_map", folder->user) < 0 ||
         write_line("/proc/self/gid_map", folder->group) < 0))
        return -1;
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    tree = folder->tree >= 0 ? folder->tree : open_tree_of(folder->path);
    if (tree < 0)
        return -1;
    if ((flags & VMM_SPAWN_FOLDER_READ_ONLY) != 0)
        attributes.set |= 1; /* MOUNT_ATTR_RDONLY */
    if (syscall(SYS_mount_setattr, tree, "", 0x1000 /* AT_EMPTY_PATH */, &attributes, sizeof(attributes)) < 0 ||
        syscall(SYS_move_mount, tree, "", AT_FDCWD, folder->at, 4 /* MOVE_MOUNT_F_EMPTY_PATH */) < 0)
        return -1;
    return chdir("/");
}

/* Between fork and exec: async-signal-safe calls only, for other threads of the parent may have held any lock. */
static void become(const char *path, const char *const *argv, const char *const *envp, int *own, int32_t count, uint32_t flags, const struct folder *folder, int errors,
                   int report)
{
    sigset_t none;
    int null, failure;

    /* no_new_privs belongs to a thread: set here, before the child has any other, it holds for all of them. */
    if (setsid() < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        goto failed;
    /* Here, while it has one thread: a namespace is a property of a thread, and those that the program starts inherit it. Nothing it mounts is seen outside. */
    if ((flags & VMM_SPAWN_ISOLATED) != 0 &&
        (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir("/") < 0))
        goto failed;
    if ((flags & VMM_SPAWN_FOLDER) != 0 && mount_folder(folder, flags) < 0)
        goto failed;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        goto failed;
    for (int fd = 0; fd < FIRST_FD - 1; fd++) {
        if (dup2(null, fd) < 0)
            goto failed;
    }
    /* Without one of its own standard error stays the parent's: last words belong in a log. */
    if (errors >= 0 && dup2(errors, 2) < 0)
        goto failed;
    for (int32_t i = 0; i < count; i++) {
        if (dup2(own[i], FIRST_FD + i) < 0)
            goto failed;
    }
    /* What is above goes at exec; report is close-on-exec, too. */
    if (syscall(SYS_close_range, (unsigned)(FIRST_FD + count), ~0u, 1u << 2 /* CLOSE_RANGE_CLOEXEC */) < 0)
        goto failed;
    for (int signal_number = 1; signal_number < 32; signal_number++) {
        if (signal_number != SIGKILL && signal_number != SIGSTOP)
            /* Who reads its standard error may go before it does. */
            signal(signal_number, signal_number == SIGPIPE ? SIG_IGN : SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(path, (char *const *)argv, (char *const *)envp);
failed:
    failure = errno;
    while (write(report, &failure, sizeof(failure)) < 0 && errno == EINTR) {
    }
    _exit(127);
}

/*
 * Runs path in a session of its own, so that it outlives us, without a way to gain privileges by exec (prctl(2), no_new_privs), with the given descriptors as 3, 4, …, standard input and output
 * on /dev/null, standard error as given (-1: the parent's), and nothing else open. Answers a pidfd, and errno of a failed exec like that of a failed fork. VMM_SPAWN_ISOLATED: in mount, network, IPC
 * and UTS namespaces of its own; needs CAP_SYS_ADMIN. VMM_SPAWN_FOLDER: in a mount namespace of its own, in which folder is mounted at at, without what is mounted under it; needs CAP_SYS_ADMIN, or
 * VMM_SPAWN_OWN_USER, and path is looked up by the child then.
 */
VMM_API intptr_t vmm_spawn(const char *path, const char *const *argv, const char *const *envp, const int32_t *fds, int32_t count, int32_t errors, uint32_t flags,
                           const char *folder_path, const char *at, int32_t *pid, int32_t *err)
{
    int report[2], own[16], made = 0, failure = 0, own_errors = -1;
    struct folder folder = {.path = folder_path, .at = at, .tree = -1};
    intptr_t pidfd = -1;
    sigset_t all, before;
    pid_t child = -1;

    if (count < 0 || count > (int32_t)(sizeof(own) / sizeof(own[0]))) {
        *err = EINVAL;
        return -1;
    }
    if (pipe2(report, O_CLOEXEC) < 0) {
        *err = errno;
        return -1;
    }
    /* Out of the way of the numbers they are to get, so that no dup2 hits one that is still needed. */
    int high = fcntl(report[1], F_DUPFD_CLOEXEC, 64);
    if (high < 0)
        goto failed;
    close(report[1]);
    report[1] = high;
    for (; made < count; made++) {
        own[made] = fcntl(fds[made], F_DUPFD_CLOEXEC, 64);
        if (own[made] < 0)
            goto failed;
    }
    snprintf(folder.user, sizeof(folder.user), "0 %u 1", (unsigned)geteuid());
    snprintf(folder.group, sizeof(folder.group), "0 %u 1", (unsigned)getegid());
    /* Here, where the folder's own path (proc(5), /proc/self/fd) is known; without the privilege only the child's namespace lets it. */
    if ((flags & VMM_SPAWN_FOLDER) != 0 && (flags & VMM_SPAWN_OWN_USER) == 0 && (folder.tree = open_tree_of(folder_path)) < 0)
        goto failed;
    if (errors >= 0 && (own_errors = fcntl(errors, F_DUPFD_CLOEXEC, 64)) < 0)
        goto failed;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    child = fork();
    if (child == 0)
        become(path, argv, envp, own, count, flags, &folder, own_errors, report[1]);
    failure = child < 0 ? errno : 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = failure;
    if (child < 0)
        goto failed;
    close(report[1]);
    report[1] = -1;
    ssize_t got;
    do {
        got = read(report[0], &failure, sizeof(failure));
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        waitpid(child, NULL, 0);
        child = -1;
        errno = failure;
        goto failed;
    }
    /* Not reaped by anyone yet, so the number is still this child's. */
    pidfd = syscall(SYS_pidfd_open, child, 0);
    if (pidfd < 0)
        goto failed;
    *pid = child;
    *err = 0;
    goto out;
failed:
    *err = errno;
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    pidfd = -1;
out:
    while (made > 0)
        close(own[--made]);
    if (own_errors >= 0)
        close(own_errors);
    if (folder.tree >= 0)
        close(folder.tree);
    close(report[0]);
    if (report[1] >= 0)
        close(report[1]);
    return pidfd;
}
