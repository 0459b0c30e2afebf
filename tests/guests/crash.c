/* Takes every gate out of its own IDT, then executes ud2: neither #UD nor #NP nor #DF can be delivered, and the processor shuts down. */
#include "kit.h"

extern u64 idt[32 * 2];

int main(struct start_info *info)
{
    (void)info;
    print("CRASHING\n");
    memset(idt, 0, sizeof(idt));
    __asm__ volatile("mov $0x1234abcd, %%ebx; ud2" : : : "rbx");
    return 0;
}
