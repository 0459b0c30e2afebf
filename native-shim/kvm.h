/* KVM part of the shim: ioctls and the vCPU run/kick pair. */
#ifndef VMMSHIM_KVM_H
#define VMMSHIM_KVM_H

#include "vmmshim.h"

/* One vCPU: its descriptor, its run page, and the thread that is inside vmm_vcpu_run (0: none). */
struct vmm_vcpu;

VMM_API int32_t vmm_ioctl(intptr_t fd, uint64_t request, void *argument);
VMM_API intptr_t vmm_ioctl_fd(intptr_t fd, uint64_t request, void *argument, int32_t *err);

VMM_API intptr_t vmm_vcpu_create(intptr_t vm, uint64_t id, uint64_t map_length, int32_t *err);
VMM_API int32_t vmm_vcpu_destroy(intptr_t vcpu);
VMM_API int32_t vmm_vcpu_ioctl(intptr_t vcpu, uint64_t request, void *argument);
VMM_API intptr_t vmm_vcpu_fd(intptr_t vcpu);
/* The dirty ring of a VM that has KVM_CAP_DIRTY_LOG_RING; unmap with munmap. */
VMM_API intptr_t vmm_vcpu_map_dirty_ring(intptr_t vcpu, uint64_t length, int32_t *err);
VMM_API intptr_t vmm_vcpu_run_page(intptr_t vcpu);
VMM_API int32_t vmm_vcpu_run(intptr_t vcpu);
VMM_API int32_t vmm_vcpu_kick(intptr_t vcpu);

#endif
