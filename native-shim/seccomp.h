/* System call filters (seccomp(2)), made with libseccomp. */
#ifndef VMMSHIM_SECCOMP_H
#define VMMSHIM_SECCOMP_H

#include "vmmshim.h"

/* One condition on an argument: (argument & mask) == value. */
struct vmm_seccomp_test {
    uint64_t argument; /* 0 to 5 */
    uint64_t mask;
    uint64_t value;
};
_Static_assert(sizeof(struct vmm_seccomp_test) == 24, "twin of Vmm.Interop.SyscallTest");

VMM_API intptr_t vmm_seccomp_create(uint32_t default_action, int32_t *err);
VMM_API int32_t vmm_seccomp_add(intptr_t builder, const char *call, uint32_t action, const struct vmm_seccomp_test *tests, uint32_t count);
VMM_API intptr_t vmm_seccomp_compile(intptr_t builder, int32_t *err);
VMM_API void vmm_seccomp_discard(intptr_t builder);
VMM_API int32_t vmm_seccomp_load(intptr_t program, int32_t whole_process, int32_t logged);
VMM_API int32_t vmm_seccomp_length(intptr_t program);
VMM_API int32_t vmm_seccomp_free(intptr_t program);

#endif
