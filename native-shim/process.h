/* Child processes and pidfds. */
#ifndef VMMSHIM_PROCESS_H
#define VMMSHIM_PROCESS_H

#include "vmmshim.h"

#define VMM_SPAWN_ISOLATED 1u

VMM_API intptr_t vmm_spawn(const char *path, const char *const *argv, const char *const *envp, const int32_t *fds, int32_t count, uint32_t flags, int32_t *pid,
                           int32_t *err);
VMM_API intptr_t vmm_pidfd_open(int32_t pid, int32_t *err);
VMM_API int32_t vmm_pidfd_signal(intptr_t pidfd, int32_t signal_number);
VMM_API int32_t vmm_pidfd_wait(intptr_t pidfd, int32_t timeout_ms, int32_t *code, int32_t *status);
VMM_API int32_t vmm_process_harden(void);
VMM_API int32_t vmm_process_become(uint32_t user);
VMM_API int32_t vmm_process_empty_root(void);

#endif
