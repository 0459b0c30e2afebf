/* n= port writes to an unused port: the cost of an exit to the VMM and back. */
#include "kit.h"

int main(struct start_info *info)
{
    args_init(info);
    u64 n = arg_number("n", 100000), khz = tsc_khz();
    u16 port = (u16)arg_number("port", 0xed);
    u64 begin = rdtsc();
    for (u64 i = 0; i < n; i++)
        out8(port, (u8)i);
    u64 cycles = rdtsc() - begin;
    print("RESULT exits n=%lu cycles=%lu us=%lu\n", n, cycles, khz ? cycles * 1000 / khz : 0);
    return 0;
}
