/* Rewrites mib= MiB at 64 MiB up, rate= pages a second (0: as fast as can be), for seconds= (0: for ever), and checks each page
   before it is written again: a lost or torn page shows as CORRUPT and exit 2. */
#include "kit.h"

int main(struct start_info *info)
{
    args_init(info);
    u64 pages = arg_number("mib", 16) * 256, rate = arg_number("rate", 0), seconds = arg_number("seconds", 5);
    u64 khz = tsc_khz(), base = arg_number("base", 64 << 20), written = 0;
    if (!khz)
        fail("no TSC frequency: give tsc_khz=");
    for (u64 i = 0; i < pages; i++)
        ((u64 *)(base + i * 4096))[0] = ((u64 *)(base + i * 4096))[511] = i;
    print("READY dirty pages=%lu khz=%lu\n", pages, khz);
    u64 begin = rdtsc(), next = khz * 1000;
    for (u64 round = 1; ; round++) {
        for (u64 i = 0; i < pages; i++) {
            volatile u64 *p = (volatile u64 *)(base + i * 4096);
            u64 expected = i + (round - 1) * 0x9e3779b97f4a7c15ull;
            if (p[0] != expected || p[511] != expected) {
                print("CORRUPT page=%lu round=%lu have=0x%lx,0x%lx want=0x%lx\n", i, round, p[0], p[511], expected);
                return 2;
            }
            p[0] = p[511] = i + round * 0x9e3779b97f4a7c15ull;
            written++;
            u64 now = rdtsc() - begin;
            while (rate && now / khz * rate < written * 1000) {
                __asm__ volatile("pause");
                now = rdtsc() - begin;
            }
            if (now >= next) {
                print("TICK dirty pages=%lu rounds=%lu\n", written, round);
                next += khz * 1000;
                if (seconds && now >= seconds * khz * 1000) {
                    print("RESULT dirty pages=%lu us=%lu\n", written, now * 1000 / khz);
                    return 0;
                }
            }
        }
    }
}
