#include "kit.h"

static void cpuid(u32 leaf, u32 r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

static u16 pit_count(void)
{
    out8(0x43, 0x00);               /* latch channel 0 */
    u8 low = in8(0x40);
    return (u16)(low | in8(0x40) << 8);
}

/* PIT channel 0, mode 2, counts 65536 down at 1.193182 MHz; 11932 counts are 10 ms. 0: no PIT. */
static u64 measure_khz(void)
{
    out8(0x43, 0x34);
    out8(0x40, 0);
    out8(0x40, 0);
    u16 first = pit_count();
    u64 begin = rdtsc();
    for (unsigned polls = 0; polls < 100000; polls++) {
        u16 gone = (u16)(first - pit_count());
        u64 cycles = rdtsc() - begin;
        if (gone >= 11932)
            return polls > 3 ? cycles * 1193182 / gone / 1000 : 0;
        if (polls > 100 && !gone)
            return 0;               /* stuck: nothing behind the port */
    }
    return 0;
}

u64 tsc_khz(void)
{
    static u64 khz;
    u32 r[4];
    if (khz || (khz = arg_number("tsc_khz", 0)))
        return khz;
    cpuid(0x40000000, r);
    if (r[0] >= 0x40000010 && r[0] < 0x40010000) {
        cpuid(0x40000010, r);
        khz = r[0];
    }
    cpuid(0, r);
    if (!khz && r[0] >= 0x15) {
        cpuid(0x15, r);
        if (r[0] && r[1] && r[2])
            khz = (u64)r[2] * r[1] / r[0] / 1000;
    }
    return khz ? khz : (khz = measure_khz());
}
