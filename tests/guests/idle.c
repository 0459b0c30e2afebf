/* Prints READY, then halts with interrupts masked. hlt is privileged, so this guest never leaves CPL 0. */
#include "kit.h"

const u32 guest_stays_at_cpl0 = 1;

int main(struct start_info *info)
{
    (void)info;
    print("READY\n");
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}
