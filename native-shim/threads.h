/* What a thread does that may wait for a page of guest memory. */
#ifndef VMMSHIM_THREADS_H
#define VMMSHIM_THREADS_H

#include <stdint.h>

enum vmm_doing {
    VMM_DOING_OTHER = 0, /* it must not wait for a page */
    VMM_DOING_GUEST = 1, /* it is a vCPU */
    VMM_DOING_COPY = 2,  /* it copies few bytes and may wait (vmm_pager_copy) */
};

/* The calling thread does this from now on; what it did before. */
int vmm_thread_does(int doing);

/* What a thread does, by its number; VMM_DOING_OTHER for one that never said. Any thread. */
int vmm_thread_doing(int32_t tid);

#endif
