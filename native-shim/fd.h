/* File descriptors: close, eventfd, timerfd, folders. */
#ifndef VMMSHIM_FD_H
#define VMMSHIM_FD_H

#include "vmmshim.h"

VMM_API int32_t vmm_close(intptr_t fd);
VMM_API intptr_t vmm_eventfd(uint32_t initial, int32_t nonblocking, int32_t *err);
VMM_API int32_t vmm_eventfd_write(intptr_t fd, uint64_t value);
VMM_API int32_t vmm_eventfd_read(intptr_t fd, uint64_t *value);
VMM_API intptr_t vmm_timerfd(int32_t *err);
VMM_API int32_t vmm_timerfd_set(intptr_t fd, uint32_t milliseconds);
VMM_API int32_t vmm_folder_sync(const char *path);

#endif
