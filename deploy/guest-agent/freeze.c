/*
 * Freezes the file systems of this guest for a snapshot of its disks, and thaws them whatever happens.
 *
 * Nothing here may wait for a disk while one is frozen: what the freeze needs is opened before it, memory is locked, nothing is logged. A child, the watch,
 * is started first. It has the same open file systems and shares the table of what is frozen; it thaws when the time is over and when its parent is gone. The
 * parent thaws when the watch is gone.
 */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/fs.h>

enum { MOST_FILE_SYSTEMS = 256, THAW_TRIES = 5, THAW_PAUSE_MS = 50 };

/* How one file system stands, and how the freeze ends. Parent and watch both thaw: a FITHAW too many says EINVAL and does no harm. */
enum state { IDLE, FREEZING, FROZEN, THAWED };
enum outcome { RUNNING, ASKED, EXPIRED };

struct shared {
    atomic_int outcome;
    atomic_int state[MOST_FILE_SYSTEMS];
};

/* A file system by its device: it may be mounted in many places and is frozen once. In the order in which they were mounted. */
struct place {
    unsigned major, minor;
    int file;
    char *path;
};

static struct {
    struct shared *shared;
    struct place places[MOST_FILE_SYSTEMS];
    int count, frozen, left, owner, watch;
    pid_t child;
    struct timespec end;
} now = { .owner = -1, .watch = -1 };

static int late_owner = -1, late_count; /* whose freeze ended before it was asked to, and how many file systems that were */

const char *freeze_problem(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &header, data) < 0 || !(data[0].effective & 1u << CAP_SYS_ADMIN))
        return "the agent runs without CAP_SYS_ADMIN (vmm-guest-agent-freeze.service has it)";
    return NULL;
}

static int milliseconds_left(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    int64_t left = (now.end.tv_sec - at.tv_sec) * INT64_C(1000) + (now.end.tv_nsec - at.tv_nsec) / 1000000;
    return left > 0 ? (int)left : 0;
}

/* Outermost first: what is on a loop device over a file can go on only when the file's file system does. Returns how many were thawed by this call. */
static int thaw_all(bool freezing_too, const char **failed)
{
    int thawed = 0;
    for (int i = 0; i < now.count; i++) {
        int state = atomic_load(&now.shared->state[i]);
        if (state != FROZEN && !(freezing_too && state == FREEZING))
            continue;
        int result = -1;
        for (int try = 0; try < THAW_TRIES; try++) {
            if (try > 0)
                poll(NULL, 0, THAW_PAUSE_MS);
            result = ioctl(now.places[i].file, FITHAW, 0);
            if (result == 0 || errno == EINVAL)
                break;
        }
        if (result == 0)
            thawed++;
        if (result == 0 || errno == EINVAL)
            atomic_store(&now.shared->state[i], THAWED);
        else if (failed)
            *failed = now.places[i].path;
    }
    return thawed;
}

/* Ends when the parent closed its end of the pair, which it also does by dying. Signals that stop a service are for the parent. */
static void __attribute__((noreturn)) watch(int pair)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int file = 0; file < 1024; file++) {
        bool needed = file == pair;
        for (int i = 0; i < now.count && !needed; i++)
            needed = now.places[i].file == file;
        if (!needed)
            close(file); /* a listener that lived on here would keep the port of the agent's successor */
    }
    char word = mlockall(MCL_CURRENT | MCL_FUTURE) == 0 ? 'r' : 'm';
    if (send(pair, &word, 1, MSG_NOSIGNAL) != 1)
        _exit(1);
    struct pollfd poller = { .fd = pair, .events = POLLIN };
    int ready;
    while ((ready = poll(&poller, 1, milliseconds_left())) < 0 && errno == EINTR)
        ;
    if (ready == 0) {
        int running = RUNNING;
        if (atomic_compare_exchange_strong(&now.shared->outcome, &running, EXPIRED)) {
            thaw_all(false, NULL);
            send(pair, "e", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        while (poll(&poller, 1, -1) < 0 && errno == EINTR)
            ; /* the parent may have one more half frozen */
    }
    thaw_all(true, NULL);
    _exit(0);
}

static void forget(void)
{
    if (now.watch >= 0)
        close(now.watch);
    if (now.child > 0)
        while (waitpid(now.child, NULL, 0) < 0 && errno == EINTR)
            ;
    for (int i = 0; i < now.count; i++) {
        if (now.places[i].file >= 0)
            close(now.places[i].file);
        free(now.places[i].path);
    }
    if (now.shared)
        munmap(now.shared, sizeof *now.shared);
    munlockall();
    memset(&now, 0, sizeof now);
    now.owner = now.watch = -1;
}

/* Frozen ones that are thawed before they were asked to: `late` is remembered for who asked. */
static void end_early(void)
{
    int running = RUNNING;
    atomic_compare_exchange_strong(&now.shared->outcome, &running, EXPIRED);
    thaw_all(true, NULL);
    late_owner = now.owner;
    late_count = now.frozen;
    forget();
}

int freeze_watched(void) { return now.watch; }

void freeze_watch_over(void)
{
    if (now.watch >= 0)
        end_early(); /* it says that the time is over, or it is gone: then nobody would thaw after a kill */
}

void freeze_owner_gone(int owner)
{
    if (owner == now.owner)
        end_early();
    if (owner == late_owner)
        late_owner = -1;
}

/* mountinfo writes a space, a tab, a newline and a backslash as three octal digits. */
static void unescape(char *path)
{
    char *to = path;
    for (const char *from = path; *from; from++)
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 3;
        } else {
            *to++ = *from;
        }
    *to = 0;
}

static bool has_option(const char *options, const char *wanted)
{
    size_t length = strlen(wanted);
    for (const char *at = options; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, wanted, length) == 0 && (at[length] == ',' || at[length] == 0))
            return true;
    return false;
}

/* /proc/filesystems has a line "\tNAME" for each type that lies on a disk, "nodev\tNAME" for the others; the kernel's rootfs is in none. */
static bool has_disk(const char *types, const char *type)
{
    char line[80];
    int count = snprintf(line, sizeof line, "\n\t%.*s\n", (int)strcspn(type, "."), type);
    return count > 0 && (size_t)count < sizeof line && strstr(types, line);
}

/* The number of the mount that a file was opened through: the path may lead elsewhere, to a mount that hides this one. */
static bool is_on_mount(int file, unsigned id)
{
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", file);
    FILE *info = fopen(path, "re");
    unsigned found = 0;
    bool known = false;
    while (info && !known && fgets(line, sizeof line, info))
        known = sscanf(line, "mnt_id: %u", &found) == 1;
    if (info)
        fclose(info);
    return known && found == id;
}

struct mount {
    unsigned id, major, minor;
    char *path, *type, *options;
};

/* "36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue", proc_pid_mountinfo(5) */
static bool parse_mount(char *line, struct mount *mount)
{
    int at = 0;
    if (sscanf(line, "%u %*u %u:%u %n", &mount->id, &mount->major, &mount->minor, &at) != 3 || at == 0)
        return false;
    char *tail = strstr(line + at, " - "), *rest = NULL;
    if (!tail)
        return false;
    *tail = 0;
    char *root = strtok_r(line + at, " ", &rest);
    mount->path = root ? strtok_r(NULL, " ", &rest) : NULL;
    mount->type = strtok_r(tail + 3, " \n", &rest);
    char *source = mount->type ? strtok_r(NULL, " \n", &rest) : NULL;
    mount->options = source ? strtok_r(NULL, " \n", &rest) : NULL;
    if (!mount->path || !mount->options || mount->path[0] != '/')
        return false;
    unescape(mount->path);
    return true;
}

/* The place of a mount's file system; a new one when it was not met before, NULL when there are too many. */
static struct place *place_of(const struct mount *mount)
{
    for (int i = 0; i < now.count; i++)
        if (now.places[i].major == mount->major && now.places[i].minor == mount->minor)
            return &now.places[i];
    char *path = now.count < MOST_FILE_SYSTEMS ? strdup(mount->path) : NULL;
    if (!path)
        return NULL;
    now.places[now.count] = (struct place){ .major = mount->major, .minor = mount->minor, .file = -1, .path = path };
    return &now.places[now.count++];
}

/* False with an answer. A file system that is not on a disk of this machine, or that nobody may write, needs no freeze; zfs and what a process serves can have none. */
static bool take(struct mount *mount, const char *types, struct text *answer)
{
    bool zfs = strcmp(mount->type, "zfs") == 0, served = strncmp(mount->type, "fuseblk", 7) == 0;
    if ((!has_disk(types, mount->type) && !zfs) || has_option(mount->options, "ro"))
        return true;
    struct place *place = place_of(mount);
    if (!place) {
        add_error(answer, "too many file systems are mounted", NULL, NULL);
        return false;
    }
    if (place->file >= 0 || zfs || served)
        return true;
    int file = open(mount->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0 && errno != ENOENT && errno != ENOTDIR) {
        add_error(answer, "cannot open", mount->path, strerror(errno));
        return false;
    }
    if (file >= 0 && is_on_mount(file, mount->id))
        place->file = file;
    else if (file >= 0)
        close(file);
    return true;
}

static bool collect(struct text *answer)
{
    static char types[16384] = "\n";
    FILE *file = open_under_root("/proc/filesystems");
    size_t count = file ? fread(types + 1, 1, sizeof types - 2, file) : 0;
    types[count + 1] = 0;
    if (file)
        fclose(file);
    FILE *mounts = count > 0 ? open_under_root("/proc/self/mountinfo") : NULL;
    if (!mounts) {
        add_error(answer, "cannot read /proc", NULL, NULL);
        return false;
    }
    char *line = NULL;
    size_t room = 0;
    bool sound = true;
    while (sound && getline(&line, &room, mounts) > 0) {
        struct mount mount;
        if (parse_mount(line, &mount))
            sound = take(&mount, types, answer);
    }
    free(line);
    fclose(mounts);
    return sound;
}

/*
 * The watch is there, has its memory locked, and waits. Nothing is frozen yet, so that a guest without processor time may take half of the time for it; the
 * rest is for the freeze.
 */
static bool start_watch(struct text *answer)
{
    int pair[2];
    now.shared = mmap(NULL, sizeof *now.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (now.shared == MAP_FAILED)
        now.shared = NULL;
    if (!now.shared || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        add_error(answer, "cannot prepare", NULL, strerror(errno));
        return false;
    }
    now.watch = pair[0];
    now.child = fork();
    if (now.child == 0)
        watch(pair[1]);
    close(pair[1]);
    char word = 0;
    struct pollfd poller = { .fd = pair[0], .events = POLLIN };
    if (now.child < 0)
        add_error(answer, "cannot start the watch", NULL, strerror(errno));
    else if (poll(&poller, 1, milliseconds_left() / 2) <= 0)
        add_error(answer, "the watch did not start in half of the time", NULL, NULL);
    else if (recv(pair[0], &word, 1, MSG_DONTWAIT) != 1 || word != 'r' || mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        add_error(answer, "cannot lock memory, or the watch ended", NULL, NULL);
    else
        return true;
    return false;
}

/* Last mounted first, so that nothing that is still written to lies on a frozen one. False with an answer. */
static bool freeze_all(unsigned seconds, struct text *answer)
{
    for (int i = now.count - 1; i >= 0; i--) {
        if (now.places[i].file < 0) {
            now.left++;
            continue;
        }
        atomic_store(&now.shared->state[i], FREEZING);
        int result = ioctl(now.places[i].file, FIFREEZE, 0), problem = errno;
        atomic_store(&now.shared->state[i], result == 0 ? FROZEN : IDLE);
        if (atomic_load(&now.shared->outcome) != RUNNING) {
            char why[64];
            snprintf(why, sizeof why, "more than %u seconds", seconds);
            add_error(answer, "freezing took too long at", now.places[i].path, why);
            return false;
        }
        if (result == 0) {
            now.frozen++;
        } else if (problem == EBUSY || problem == EOPNOTSUPP || problem == ENOTTY) {
            now.left++; /* somebody else froze it, or its type cannot be frozen */
        } else {
            add_error(answer, "cannot freeze", now.places[i].path, strerror(problem));
            return false;
        }
    }
    if (now.frozen == 0)
        add_error(answer, "no file system here can be frozen", NULL, NULL);
    return now.frozen > 0;
}

void freeze_ask(int owner, unsigned seconds, struct text *answer)
{
    const char *problem = freeze_problem();
    if (problem || now.owner >= 0) {
        add_error(answer, problem ? problem : "frozen already", NULL, NULL);
        return;
    }
    late_owner = -1;
    clock_gettime(CLOCK_MONOTONIC, &now.end);
    now.end.tv_sec += seconds;
    bool done = collect(answer) && start_watch(answer) && freeze_all(seconds, answer);
    if (done) {
        now.owner = owner;
        add(answer, "{\"v\":1,\"frozen\":%d,\"left\":%d}\n", now.frozen, now.left);
        return;
    }
    if (now.shared)
        thaw_all(true, NULL);
    forget();
}

void thaw_ask(int owner, struct text *answer)
{
    if (owner == late_owner) {
        add(answer, "{\"v\":1,\"thawed\":%d,\"late\":true}\n", late_count);
        late_owner = -1;
        return;
    }
    if (now.owner < 0 || owner != now.owner) {
        add_error(answer, "not frozen by this connection", NULL, NULL);
        return;
    }
    int running = RUNNING;
    bool asked = atomic_compare_exchange_strong(&now.shared->outcome, &running, ASKED);
    const char *failed = NULL;
    int frozen = now.frozen, thawed = thaw_all(true, &failed);
    if (failed)
        add_error(answer, "cannot thaw", failed, NULL);
    else /* somebody else may have thawed one: then the snapshot cannot rely on it */
        add(answer, "{\"v\":1,\"thawed\":%d,\"late\":%s}\n", frozen, asked && thawed == frozen ? "false" : "true");
    forget();
}
