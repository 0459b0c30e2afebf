/* Raw files and block devices under virtual disks: open, what they are, who may use them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vmmshim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

struct vmm_block_info {
    uint64_t size;
    uint32_t kind; /* 1 regular file, 2 block device, 0 neither */
    uint32_t logical_block;
    uint32_t physical_block;
    uint32_t direct_memory_align; /* 0: unknown or no O_DIRECT */
    uint32_t direct_offset_align;
    uint32_t read_only;
};
_Static_assert(sizeof(struct vmm_block_info) == 32, "twin of Vmm.Interop.BlockFileInfo");

/* The kind is checked before opening: a FIFO must not block us. */
VMM_API intptr_t vmm_block_open(const char *path, int32_t writable, int32_t direct, int32_t *err)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        *err = errno;
        return -1;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        *err = S_ISDIR(st.st_mode) ? EISDIR : ENOTBLK;
        return -1;
    }
    int fd = open(path, O_CLOEXEC | (writable ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0));
    *err = fd < 0 ? errno : 0;
    return fd;
}

#ifndef STATX_DIOALIGN /* since Linux 6.1; an older kernel leaves the bit out of the answer */
#define STATX_DIOALIGN 0
#endif

/* statx and not fstat: glibc makes newfstatat of that, which a confined worker may not call. */
VMM_API int32_t vmm_block_info(intptr_t fd, struct vmm_block_info *info)
{
    struct statx st;
    memset(info, 0, sizeof(*info));
    if (statx((int)fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_DIOALIGN, &st) < 0)
        return -errno;
    info->logical_block = 512;
    info->physical_block = 512;
    if (S_ISREG(st.stx_mode)) {
        info->kind = 1;
        info->size = st.stx_size;
        if (st.stx_blksize >= 512 && st.stx_blksize <= 65536)
            info->physical_block = st.stx_blksize;
    } else if (S_ISBLK(st.stx_mode)) {
        int logical = 512, read_only = 0;
        unsigned physical = 512;
        info->kind = 2;
        if (ioctl((int)fd, BLKGETSIZE64, &info->size) < 0)
            return -errno;
        if (ioctl((int)fd, BLKSSZGET, &logical) == 0 && logical >= 512)
            info->logical_block = (uint32_t)logical;
        if (ioctl((int)fd, BLKPBSZGET, &physical) == 0)
            info->physical_block = physical;
        if (ioctl((int)fd, BLKROGET, &read_only) == 0)
            info->read_only = read_only != 0;
        info->direct_memory_align = info->logical_block;
        info->direct_offset_align = info->logical_block;
    }
#if STATX_DIOALIGN
    if (st.stx_mask & STATX_DIOALIGN) {
        info->direct_memory_align = st.stx_dio_mem_align;
        info->direct_offset_align = st.stx_dio_offset_align;
    }
#endif
    return 0;
}

/* An open-file-description lock on the whole file; -EAGAIN when another holder excludes us. */
VMM_API int32_t vmm_block_lock(intptr_t fd, int32_t exclusive)
{
    struct flock lock = { .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    if (fcntl((int)fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

/* 0: nothing there (or not visible), 1: a directory, 2: anything else. */
VMM_API int32_t vmm_path_kind(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return 0;
    return S_ISDIR(st.st_mode) ? 1 : 2;
}

/* Bytes read at the offset, fewer only at the end of the file; -errno. */
VMM_API int64_t vmm_file_read_at(intptr_t fd, void *buffer, uint64_t length, uint64_t offset)
{
    uint64_t done = 0;
    while (done < length) {
        ssize_t n = pread((int)fd, (char *)buffer + done, length - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

/* Bytes written at the offset from a vector, or -errno; may be short. Blocks while the kernel holds back writers of dirty pages. */
VMM_API int64_t vmm_file_write_at(intptr_t fd, const struct iovec *vectors, int32_t count, uint64_t offset)
{
    ssize_t n;
    do {
        n = count == 1 ? pwrite((int)fd, vectors[0].iov_base, vectors[0].iov_len, (off_t)offset) : pwritev((int)fd, vectors, count, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int64_t)n;
}

/* Bytes read at the offset into a vector, or -errno; may be short. With nowait only what is there without waiting (-EAGAIN: nothing). */
VMM_API int64_t vmm_file_readv_at(intptr_t fd, const struct iovec *vectors, int32_t count, uint64_t offset, int32_t nowait)
{
    ssize_t n;
    do {
        n = nowait ? preadv2((int)fd, vectors, count, (off_t)offset, RWF_NOWAIT)
            : count == 1 ? pread((int)fd, vectors[0].iov_base, vectors[0].iov_len, (off_t)offset)
                         : preadv((int)fd, vectors, count, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int64_t)n;
}

/* 1: the kernel can be asked not to wait for this file, 0: not, and io_uring hands every request to a kernel worker. */
VMM_API int32_t vmm_file_takes_nowait(intptr_t fd)
{
    char byte;
    struct iovec vector = {&byte, 1};
    return preadv2((int)fd, &vector, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}
