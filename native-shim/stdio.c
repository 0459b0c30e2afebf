/* A program that was started without descriptor 0, 1 or 2 would open its files there, and write its messages into a disk or /dev/kvm. */
#include "vmmshim.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Before the runtime starts and opens anything: open takes the lowest number that is free. */
__attribute__((constructor)) static void open_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", O_RDWR);
}
