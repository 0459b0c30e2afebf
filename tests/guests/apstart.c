/*
 * Starts its other processors, APIC ids 1 to cpus= - 1, with INIT and SIPI in xAPIC mode, and has no local APIC enabled by software before: as memtest86+ does on machines whose
 * firmware has done it. Each runs a few instructions in real mode.
 */
#include "kit.h"

const u32 guest_stays_at_cpl0 = 1;

static volatile u32 *const apic = (volatile u32 *)0xfee00000;
static volatile u32 *const runs = (volatile u32 *)0x7200;

__asm__(
    ".text\n.code16\n"
    "ap: xor %ax, %ax\n mov %ax, %ds\n"
    "    movl $1, 0x7200\n"
    "1:  cli\n hlt\n jmp 1b\n"
    "ap_end:\n.code64\n");
extern const u8 ap[], ap_end[];

static void send(u32 id, u32 command)
{
    apic[0x310 / 4] = id << 24;
    apic[0x300 / 4] = command;
}

int main(struct start_info *info)
{
    args_init(info);
    if (apic[0xf0 / 4] & 0x100)
        fail("the local APIC is enabled");
    memcpy((void *)0x8000, ap, (size_t)(ap_end - ap));
    for (u32 id = 1; id < arg_number("cpus", 2); id++) {
        *runs = 0;
        send(id, 0xc500);   /* INIT, level, assert */
        send(id, 0x8500);   /* and de-assert */
        send(id, 0x608);    /* SIPI, page 8 */
        for (u64 end = rdtsc() + 10000000000ull; !*runs;)
            if (rdtsc() > end)
                fail("processor %u does not start", id);
        print("STARTED %u\n", id);
    }
    return 0;
}
