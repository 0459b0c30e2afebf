/*
 * vmm-guest-agent: tells vmmd how much memory each NUMA node of this guest has and needs, and freezes its file systems for a snapshot of its disks.
 *
 * Listens on vsock port 1028 (or, for tests, on a unix socket) and answers each line with one line of JSON (README.md); what it does not know gets
 * {"v":1,"error":"..."}. It reads files under /sys and /proc and writes nothing. Only the freeze needs privileges (freeze.c).
 */
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

enum { PORT = 1028, LINE_MAX_BYTES = 512, ANSWER_BYTES = 48 * 1024, IDLE_MS = 90 * 1000, SEND_MS = 5000, MOST_NODES = 256, MOST_PEERS = 8 };

static const char version[] = "1.1";
static const char *root = "";

void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(text->at + text->length, text->room - text->length, format, arguments);
    va_end(arguments);
    if (count < 0 || (size_t)count >= text->room - text->length)
        text->full = true;
    else
        text->length += (size_t)count;
}

/* Names of files may have any bytes: what is not plain ASCII is told as a question mark. */
static void add_plain(struct text *text, const char *from)
{
    for (int i = 0; from[i] && i < 200; i++)
        add(text, "%c", from[i] < ' ' || from[i] > '~' || from[i] == '"' || from[i] == '\\' ? '?' : from[i]);
}

void add_error(struct text *text, const char *what, const char *path, const char *why)
{
    add(text, "{\"v\":1,\"error\":\"");
    add_plain(text, what);
    if (path) {
        add(text, " ");
        add_plain(text, path);
    }
    if (why) {
        add(text, ": ");
        add_plain(text, why);
    }
    add(text, "\"}\n");
}

FILE *open_under_root(const char *path)
{
    char whole[1024];
    int count = snprintf(whole, sizeof whole, "%s%s", root, path);
    return count > 0 && (size_t)count < sizeof whole ? fopen(whole, "re") : NULL;
}

struct memory {
    uint64_t total, free, available;
};

/* Lines are "Node 0 MemFree:  123 kB". A node has no MemAvailable: free memory, file pages, and half of what slabs could give back. */
static bool read_node(int node, struct memory *memory)
{
    char path[128], line[256];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node);
    FILE *file = open_under_root(path);
    if (!file)
        return false;
    uint64_t total = 0, free = 0, files = 0, slab = 0;
    while (fgets(line, sizeof line, file)) {
        char name[64];
        int number;
        unsigned long long kib;
        if (sscanf(line, "Node %d %63[^:]: %llu", &number, name, &kib) != 3 || kib > UINT64_C(1) << 42)
            continue;
        if (strcmp(name, "MemTotal") == 0)
            total = kib;
        else if (strcmp(name, "MemFree") == 0)
            free = kib;
        else if (strcmp(name, "Active(file)") == 0 || strcmp(name, "Inactive(file)") == 0)
            files += kib;
        else if (strcmp(name, "SReclaimable") == 0)
            slab = kib;
    }
    fclose(file);
    uint64_t available = free + files + slab / 2;
    *memory = (struct memory){ total * 1024, (free < total ? free : total) * 1024, (available < total ? available : total) * 1024 };
    return true;
}

/* "some avg10=0.12 avg60=... total=...", then "full ..." (Documentation/accounting/psi.rst); a kernel without PSI has no such file. */
static void add_stalls(struct text *text)
{
    FILE *file = open_under_root("/proc/pressure/memory");
    if (!file)
        return;
    char line[256], kind[8];
    double share;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%7s avg10=%lf", kind, &share) == 2 && share >= 0 && share <= 100 && (strcmp(kind, "some") == 0 || strcmp(kind, "full") == 0))
            add(text, ",\"%s\":%.2f", kind, share);
    fclose(file);
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void add_memory(struct text *text)
{
    char path[1024];
    int nodes[MOST_NODES], count = 0, told = 0;
    snprintf(path, sizeof path, "%s/sys/devices/system/node", root);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && count < MOST_NODES && (entry = readdir(folder));) {
        char more;
        if (sscanf(entry->d_name, "node%d%c", &nodes[count], &more) == 1 && nodes[count] >= 0)
            count++;
    }
    if (folder)
        closedir(folder);
    qsort(nodes, (size_t)count, sizeof nodes[0], by_number);
    add(text, "{\"v\":1,\"nodes\":[");
    for (int i = 0; i < count; i++) {
        struct memory memory;
        if (!read_node(nodes[i], &memory))
            continue;
        add(text, "%s{\"node\":%d,\"total\":%llu,\"free\":%llu,\"available\":%llu}", told++ ? "," : "", nodes[i], (unsigned long long)memory.total,
            (unsigned long long)memory.free, (unsigned long long)memory.available);
    }
    add(text, "]");
    add_stalls(text);
    add(text, "}\n");
}

static bool wait_for(int file, short events, int milliseconds)
{
    struct pollfd poller = { .fd = file, .events = events };
    int ready;
    do
        ready = poll(&poller, 1, milliseconds);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

static bool say(int file, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(file, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_for(file, POLLOUT, SEND_MS))
                return false;
        } else if (sent <= 0) {
            return false;
        } else {
            text += sent;
            length -= (size_t)sent;
        }
    }
    return true;
}

/* {"v":1,"freeze":{"seconds":N}}, N from 1 to MOST_SECONDS, written in no other way; 0 when it is not that. */
static unsigned seconds_of(const char *question)
{
    char again[64];
    unsigned seconds = 0;
    if (sscanf(question, "{\"v\":1,\"freeze\":{\"seconds\":%2u}}", &seconds) != 1 || seconds < 1 || seconds > MOST_SECONDS)
        return 0;
    snprintf(again, sizeof again, "{\"v\":1,\"freeze\":{\"seconds\":%u}}", seconds);
    return strcmp(question, again) == 0 ? seconds : 0;
}

static void add_abilities(struct text *text)
{
    const char *problem = freeze_problem();
    add(text, "{\"v\":1,\"agent\":\"%s\",\"memory\":true,\"freeze\":%s", version, problem ? "false" : "true");
    if (problem) {
        add(text, ",\"why\":\"");
        add_plain(text, problem);
        add(text, "\"");
    }
    add(text, "}\n");
}

static bool answer(int owner, int file, const char *question)
{
    static char buffer[ANSWER_BYTES];
    struct text text = { .at = buffer, .room = sizeof buffer };
    unsigned seconds = seconds_of(question);
    if (strcmp(question, "{\"v\":1,\"get\":\"memory\"}") == 0)
        add_memory(&text);
    else if (strcmp(question, "{\"v\":1,\"get\":\"agent\"}") == 0)
        add_abilities(&text);
    else if (strcmp(question, "{\"v\":1,\"thaw\":true}") == 0)
        thaw_ask(owner, &text);
    else if (seconds > 0)
        freeze_ask(owner, seconds, &text);
    else
        add_error(&text, "not understood", NULL, NULL);
    return !text.full && say(file, buffer, text.length);
}

struct peer {
    int file;
    time_t heard;
    size_t length;
    char line[LINE_MAX_BYTES];
};

static struct peer peers[MOST_PEERS];

static time_t seconds_now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec;
}

static void hang_up(int i)
{
    close(peers[i].file);
    peers[i].file = -1;
    freeze_owner_gone(i);
}

/* False when the peer is to go. */
static bool hear(int i)
{
    struct peer *peer = &peers[i];
    ssize_t count = recv(peer->file, peer->line + peer->length, sizeof peer->line - 1 - peer->length, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (count <= 0)
        return false;
    peer->heard = seconds_now();
    peer->length += (size_t)count;
    for (char *end; (end = memchr(peer->line, '\n', peer->length));) {
        *end = 0;
        if (!answer(i, peer->file, peer->line))
            return false;
        peer->length -= (size_t)(end + 1 - peer->line);
        memmove(peer->line, end + 1, peer->length);
    }
    return peer->length < sizeof peer->line - 1; /* no question is that long */
}

static int listen_on(const char *path)
{
    int file;
    if (path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        if (strlen(path) >= sizeof address.sun_path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(address.sun_path, path, strlen(path) + 1);
        unlink(path);
        file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (file >= 0 && bind(file, (struct sockaddr *)&address, sizeof address) < 0)
            return -1;
    } else {
        struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = PORT };
        file = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (file >= 0 && bind(file, (struct sockaddr *)&address, sizeof address) < 0)
            return -1;
    }
    return file < 0 || listen(file, 4) < 0 ? -1 : file;
}

/* Only the host may ask through vsock: another process of the guest has context id 1 or its own. */
static bool is_host(int file)
{
    struct sockaddr_vm peer;
    socklen_t length = sizeof peer;
    return getpeername(file, (struct sockaddr *)&peer, &length) == 0 && (peer.svm_family != AF_VSOCK || peer.svm_cid == VMADDR_CID_HOST);
}

/* A peer that comes when all places are taken waits in the listener's queue. */
static void meet(int listener)
{
    int file = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (file < 0) {
        if (errno != EINTR && errno != ECONNABORTED && errno != EAGAIN)
            poll(NULL, 0, 1000); /* out of descriptors, say: not in circles */
        return;
    }
    for (int i = 0; i < MOST_PEERS && is_host(file); i++)
        if (peers[i].file < 0) {
            peers[i] = (struct peer){ .file = file, .heard = seconds_now() };
            return;
        }
    close(file);
}

static void serve(int listener)
{
    for (;;) {
        struct pollfd pollers[MOST_PEERS + 2];
        bool room = false;
        for (int i = 0; i < MOST_PEERS; i++) {
            pollers[i] = (struct pollfd){ .fd = peers[i].file, .events = POLLIN };
            room = room || peers[i].file < 0;
        }
        pollers[MOST_PEERS] = (struct pollfd){ .fd = room ? listener : -1, .events = POLLIN };
        pollers[MOST_PEERS + 1] = (struct pollfd){ .fd = freeze_watched(), .events = POLLIN };
        if (poll(pollers, MOST_PEERS + 2, IDLE_MS / 4) < 0)
            continue;
        if (pollers[MOST_PEERS + 1].revents)
            freeze_watch_over();
        for (int i = 0; i < MOST_PEERS; i++)
            if (peers[i].file >= 0 && (pollers[i].revents ? !hear(i) : seconds_now() - peers[i].heard > IDLE_MS / 1000))
                hang_up(i);
        if (pollers[MOST_PEERS].revents)
            meet(listener);
    }
}

int main(int count, char **arguments)
{
    const char *path = NULL;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--listen-unix") == 0 && i + 1 < count) {
            path = arguments[++i];
        } else if (strcmp(arguments[i], "--root") == 0 && i + 1 < count) {
            root = arguments[++i];
        } else {
            fprintf(stderr, "usage: vmm-guest-agent [--listen-unix PATH] [--root DIR]\nAnswers vmmd on vsock port %d. The options are for tests.\n", PORT);
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(path);
    if (listener < 0) {
        fprintf(stderr, "vmm-guest-agent: cannot listen on %s: %s%s\n", path ? path : "vsock port 1028", strerror(errno), path ? "" : " (does this VM have a vsock device?)");
        return 1;
    }
    for (int i = 0; i < MOST_PEERS; i++)
        peers[i].file = -1;
    serve(listener);
}
