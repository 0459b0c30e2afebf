/* vhost-net: frames between a tap and the rings of a guest, moved by the kernel (linux/vhost.h). */
#define _GNU_SOURCE
#include "vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static int32_t call(intptr_t fd, unsigned long request, void *argument)
{
    return ioctl((int)fd, request, argument) < 0 ? -errno : 0;
}

VMM_API intptr_t vmm_vhost_open(int32_t *err)
{
    int fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
    *err = fd < 0 ? errno : 0;
    return fd;
}

VMM_API int32_t vmm_vhost_own(intptr_t fd)
{
    return call(fd, VHOST_SET_OWNER, NULL);
}

VMM_API int32_t vmm_vhost_features(intptr_t fd, uint64_t *features)
{
    return call(fd, VHOST_GET_FEATURES, features);
}

VMM_API int32_t vmm_vhost_set_features(intptr_t fd, uint64_t features)
{
    return call(fd, VHOST_SET_FEATURES, &features);
}

VMM_API int32_t vmm_vhost_memory(intptr_t fd, const struct vhost_memory_region *regions, uint32_t count)
{
    struct vhost_memory *table = calloc(1, sizeof(*table) + count * sizeof(*regions));
    if (table == NULL)
        return -ENOMEM;
    table->nregions = count;
    memcpy(table->regions, regions, count * sizeof(*regions));
    int32_t answer = call(fd, VHOST_SET_MEM_TABLE, table);
    free(table);
    return answer;
}

VMM_API int32_t vmm_vhost_ring(intptr_t fd, const struct vmm_vhost_ring *ring)
{
    struct vhost_vring_state size = {.index = ring->index, .num = ring->size}, base = {.index = ring->index, .num = ring->next};
    struct vhost_vring_addr address = {
        .index = ring->index, .desc_user_addr = ring->descriptors, .avail_user_addr = ring->driver, .used_user_addr = ring->device};
    struct vhost_vring_file kick = {.index = ring->index, .fd = ring->kick}, tell = {.index = ring->index, .fd = ring->call},
                            error = {.index = ring->index, .fd = ring->error};
    int32_t answer = call(fd, VHOST_SET_VRING_NUM, &size);
    if (answer == 0)
        answer = call(fd, VHOST_SET_VRING_BASE, &base);
    if (answer == 0)
        answer = call(fd, VHOST_SET_VRING_ADDR, &address);
    if (answer == 0)
        answer = call(fd, VHOST_SET_VRING_KICK, &kick);
    if (answer == 0)
        answer = call(fd, VHOST_SET_VRING_CALL, &tell);
    if (answer == 0)
        answer = call(fd, VHOST_SET_VRING_ERR, &error);
    return answer;
}

VMM_API int32_t vmm_vhost_backend(intptr_t fd, uint32_t index, intptr_t tap)
{
    struct vhost_vring_file backend = {.index = index, .fd = (int)tap};
    return call(fd, VHOST_NET_SET_BACKEND, &backend);
}

VMM_API int32_t vmm_vhost_base(intptr_t fd, uint32_t index, uint32_t *next)
{
    struct vhost_vring_state base = {.index = index};
    int32_t answer = call(fd, VHOST_GET_VRING_BASE, &base);
    *next = base.num;
    return answer;
}
