/* The kernel's random numbers. */
#include "vmmshim.h"

#include <errno.h>
#include <sys/random.h>

/* Fills the buffer from getrandom(2), which needs no file; waits only in the first seconds of a host's life. */
VMM_API int32_t vmm_random(void *buffer, uint64_t length)
{
    char *at = buffer;
    while (length > 0) {
        ssize_t n = getrandom(at, length, 0);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            at += n;
            length -= (uint64_t)n;
        }
    }
    return 0;
}
