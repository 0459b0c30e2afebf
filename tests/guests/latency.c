/* What a load costs in the memory of each node, from this CPU: a walk through mib= MiB in an order that no prefetcher guesses, each load needing the one before.
   RESULT latency nodeN=HUNDREDTHS OF A TSC CYCLE A LOAD; a node without that much memory beside the image is left out. */
#include "acpi.h"

#define LINE 64

/* One cycle through all lines (Sattolo): word 0 of a line holds the address of the next, word 1 its number while the order is made. */
static void link_lines(u64 base, u64 lines, u64 *seed)
{
    for (u64 i = 0; i < lines; i++)
        ((u64 *)(base + i * LINE))[1] = i;
    for (u64 i = lines - 1; i > 0; i--) {
        u64 j = next_random(seed) % i, *a = (u64 *)(base + i * LINE), *b = (u64 *)(base + j * LINE), t = a[1];
        a[1] = b[1];
        b[1] = t;
    }
    for (u64 i = 0; i < lines; i++)
        *(u64 *)(base + i * LINE) = base + ((u64 *)(base + i * LINE))[1] * LINE;
}

static u64 walk(u64 at, u64 loads)
{
    u64 begin = rdtsc();
    for (u64 i = 0; i < loads; i++)
        at = *(volatile u64 *)at;
    u64 end = rdtsc();
    __asm__ volatile("" : : "r"(at));
    return end - begin;
}

int main(struct start_info *info)
{
    args_init(info);
    acpi_init(info);
    const u8 *srat = (const u8 *)acpi_find("SRAT");
    if (!srat)
        fail("no SRAT");
    u64 bytes = arg_number("mib", 32) << 20, loads = arg_number("loads", 2000000), seed = 0x1234567, done = 0;
    u64 cycles[16];
    bool measured[16] = {false};
    for (u32 at = 48, n = get32(srat + 4); at + 2 <= n && srat[at + 1]; at += srat[at + 1]) {
        const u8 *e = srat + at;
        if (e[0] != 1 || !(e[28] & 1) || (e[28] & 2))      /* memory that is there, not hot-pluggable */
            continue;
        u64 base = get64(e + 8), end = base + get64(e + 16), node = get32(e + 2), first = base < (32 << 20) ? 32 << 20 : base;
        if (node >= 16 || measured[node] || first + bytes > end)
            continue;
        link_lines(first, bytes / LINE, &seed);
        walk(first, bytes / LINE);                          /* the host's pages are there, the TLB knows what it can */
        cycles[node] = walk(first, loads) * 100 / loads;
        measured[node] = true;
        done++;
    }
    if (!done)
        fail("no node has %lu MiB", bytes >> 20);
    print("RESULT latency nodes=%lu", done);
    for (u32 node = 0; node < 16; node++)
        if (measured[node])
            print(" node%u=%lu", node, cycles[node]);
    print("\n");
    return 0;
}
