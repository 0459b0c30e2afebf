/* Executes ud2: the exception report and exit code 0xEE of the start-up code, checked on purpose. */
#include "kit.h"

int main(struct start_info *info)
{
    (void)info;
    __asm__ volatile("ud2");
    return 0;
}
