/* Files that may be used only where they were allowed: opened beneath a folder, and looked at before they are opened for good. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vmmshim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct vmm_file_facts {
    uint64_t device, inode, links;
    uint32_t mode, user, group, reserved;
};
_Static_assert(sizeof(struct vmm_file_facts) == 40, "twin of Vmm.Interop.FileFacts");

static int32_t facts(int fd, struct vmm_file_facts *found)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    *found = (struct vmm_file_facts){st.st_dev, st.st_ino, st.st_nlink, st.st_mode, st.st_uid, st.st_gid, 0};
    return 0;
}

/* O_PATH: nothing of the file itself is touched. Confined: no way out of the folder, not by .., not by a link (EXDEV), and none of /proc's links (ELOOP).
   Not confined: links are followed, /proc's are not. openat2 is there since Linux 5.6. */
VMM_API intptr_t vmm_open_beneath(const char *folder, const char *path, int32_t confined, struct vmm_file_facts *found, int32_t *err)
{
    int base = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base < 0) {
        *err = errno;
        return -1;
    }
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS | (confined ? RESOLVE_BENEATH : 0)};
    long fd;
    int tries = 0;
    do {
        fd = syscall(SYS_openat2, base, path, &how, sizeof(how));
    } while (fd < 0 && errno == EAGAIN && ++tries < 100); /* a rename somewhere on the way, openat2(2) */
    *err = fd < 0 ? errno : 0;
    close(base);
    if (fd >= 0 && (*err = -facts((int)fd, found)) != 0) {
        close((int)fd);
        return -1;
    }
    return fd;
}

/* The file of an O_PATH descriptor opened for good: it is the one that was looked at, whatever its name names by now. */
VMM_API intptr_t vmm_reopen(intptr_t fd, int32_t writable, int32_t exclusive, int32_t *err)
{
    char name[32];
    snprintf(name, sizeof(name), "/proc/self/fd/%d", (int)fd);
    int opened = open(name, O_CLOEXEC | O_NONBLOCK | (writable ? O_RDWR : O_RDONLY) | (exclusive ? O_EXCL : 0));
    *err = opened < 0 ? errno : 0;
    if (opened >= 0)
        fcntl(opened, F_SETFL, 0); /* O_NONBLOCK was for a FIFO, should one have come this far */
    return opened;
}

/* Facts of the last part of a path itself; a link is not followed. */
VMM_API int32_t vmm_file_facts(const char *path, struct vmm_file_facts *found)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int32_t rc = facts(fd, found);
    close(fd);
    return rc;
}

/* Whose files this process makes. */
VMM_API uint32_t vmm_own_user(void)
{
    return geteuid();
}
