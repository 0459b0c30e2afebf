/* vhost-net; see vhost.c. Every call returns 0 or -errno. */
#pragma once
#include "vmmshim.h"

struct vhost_memory_region;

/* A ring to hand over: where it lies in this process, the next available entry, and eventfds. */
struct vmm_vhost_ring {
    uint32_t index, size, next;
    int32_t kick, call, error;
    uint64_t descriptors, driver, device;
};

VMM_API intptr_t vmm_vhost_open(int32_t *err);
/* The calling process's memory is what addresses mean from here on; starts the kernel's worker. */
VMM_API int32_t vmm_vhost_own(intptr_t fd);
VMM_API int32_t vmm_vhost_features(intptr_t fd, uint64_t *features);
VMM_API int32_t vmm_vhost_set_features(intptr_t fd, uint64_t features);
VMM_API int32_t vmm_vhost_memory(intptr_t fd, const struct vhost_memory_region *regions, uint32_t count);
VMM_API int32_t vmm_vhost_ring(intptr_t fd, const struct vmm_vhost_ring *ring);
/* The ring is served from here on; tap -1: no longer, and nothing of it is in flight when this returns. */
VMM_API int32_t vmm_vhost_backend(intptr_t fd, uint32_t index, intptr_t tap);
VMM_API int32_t vmm_vhost_base(intptr_t fd, uint32_t index, uint32_t *next);
