/* Child processes. */
#ifndef VMMSHIM_PROCESS_H
#define VMMSHIM_PROCESS_H

#include "vmmshim.h"

#define VMM_SPAWN_ISOLATED 1u
#define VMM_SPAWN_FOLDER 2u           /* a mount namespace of its own, with the folder at another place */
#define VMM_SPAWN_FOLDER_READ_ONLY 4u /* where it cannot be changed */
#define VMM_SPAWN_OWN_USER 8u         /* a user namespace of its own, whose root is the caller */

VMM_API intptr_t vmm_spawn(const char *path, const char *const *argv, const char *const *envp, const int32_t *fds, int32_t count, int32_t errors, uint32_t flags,
                           const char *folder, const char *at, int32_t *pid, int32_t *err);

#endif
