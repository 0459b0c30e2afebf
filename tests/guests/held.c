/* Holds patterns in mib= MiB at base= up: waits for a byte on the serial port, checks them all, and ends.
   A page that was lost shows as CORRUPT and exit 2. */
#include "kit.h"

#define WORDS 512

static u64 pattern(u64 page, unsigned word) { return (page * WORDS + word) * 0x9e3779b97f4a7c15ull | 1; }

int main(struct start_info *info)
{
    args_init(info);
    u64 pages = arg_number("mib", 64) * 256, base = arg_number("base", 64 << 20);
    for (u64 page = 0; page < pages; page++)
        for (unsigned word = 0; word < WORDS; word += 37) /* compresses as memory of programs does */
            ((u64 *)(base + page * 4096))[word] = pattern(page, word);
    print("READY held pages=%lu\n", pages);
    while (!(in8(0x3fd) & 1))
        for (unsigned i = 0; i < 100000; i++)
            __asm__ volatile("pause");
    in8(0x3f8);
    for (u64 page = 0; page < pages; page++)
        for (unsigned word = 0; word < WORDS; word++) {
            u64 have = ((u64 *)(base + page * 4096))[word], want = word % 37 ? 0 : pattern(page, word);
            if (have != want) {
                print("CORRUPT page=%lu word=%u have=0x%lx want=0x%lx\n", page, word, have, want);
                return 2;
            }
        }
    print("RESULT held pages=%lu\n", pages);
    return 0;
}
