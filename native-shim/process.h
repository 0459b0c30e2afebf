/* Child processes. */
#ifndef VMMSHIM_PROCESS_H
#define VMMSHIM_PROCESS_H

#include "vmmshim.h"

#define VMM_SPAWN_ISOLATED 1u

VMM_API intptr_t vmm_spawn(const char *path, const char *const *argv, const char *const *envp, const int32_t *fds, int32_t count, int32_t errors, uint32_t flags, int32_t *pid,
                           int32_t *err);

#endif
