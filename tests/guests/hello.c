/* First byte on the serial port as early as can be (start-up time is measured to it), then HELLO and exit 0. */
#include "kit.h"

int main(struct start_info *info)
{
    put_char('H');
    if (info->magic != 0x336ec578)
        fail("start info magic 0x%x", info->magic);
    print("ELLO\n");
    return 0;
}
