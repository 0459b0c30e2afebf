/* Exports of libvmmshim.so. Functions that make an fd return intptr_t (-1 on failure, errno through *err);
 * all others answer 0 (or a count) or -errno. Only fixed-width types cross the border. */
#ifndef VMMSHIM_H
#define VMMSHIM_H

#include <stddef.h>
#include <stdint.h>

#define VMM_API __attribute__((visibility("default")))

#endif
