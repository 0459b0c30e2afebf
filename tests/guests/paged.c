/* Memory and a disk at once: mib= MiB at 64 MiB up hold patterns, which go to the disk, come back to other pages, are changed and are checked, for requests= steps (0: until a byte comes on the serial port).
   A page that was lost, or a transfer that met another page than it was given, shows as CORRUPT and exit 2. */
#include "block.h"

#define PAGE 4096ul
#define MOST_PAGES (512u * 256)
#define MOST_BLOCKS (1024u * 256)
#define NONE 0

static struct block block;
static u32 pages_hold[MOST_PAGES], blocks_hold[MOST_BLOCKS]; /* the seed of each page and each block; NONE: not known */
static u8 *base;

static void fill(u64 page, u32 seed)
{
    u64 state = seed, *at = (u64 *)(base + page * PAGE);
    for (unsigned i = 0; i < PAGE / 8; i++)
        at[i] = next_random(&state);
    pages_hold[page] = seed;
}

static bool check(u64 page)
{
    u64 state = pages_hold[page], *at = (u64 *)(base + page * PAGE);
    for (unsigned i = 0; pages_hold[page] != NONE && i < PAGE / 8; i++) {
        u64 want = next_random(&state);
        if (at[i] != want) {
            print("CORRUPT page=%lu word=%u have=0x%lx want=0x%lx\n", page, i, at[i], want);
            return false;
        }
    }
    return true;
}

int main(struct start_info *info)
{
    args_init(info);
    u64 pages = arg_number("mib", 100) * 256, steps = arg_number("requests", 20000), random = arg_number("seed", 42);
    base = (u8 *)arg_number("base", 64 << 20);
    block_open(&block, info);
    u64 blocks = block.sectors / 8 < MOST_BLOCKS ? block.sectors / 8 : MOST_BLOCKS, counts[3] = {0};
    if (pages > MOST_PAGES || blocks < 64)
        fail("too much memory, or too small a disk");
    for (u64 i = 0; i < pages; i++)
        fill(i, (u32)next_random(&random) | 1);
    print("READY paged pages=%lu blocks=%lu\n", pages, blocks);
    for (u64 step = 0; steps ? step < steps : step % 16 || !(in8(0x3fd) & 1); step++) {
        u32 count = 1 + (u32)(next_random(&random) % 16), kind = (u32)(next_random(&random) % 8);
        u64 page = next_random(&random) % (pages - 16), at = next_random(&random) % (blocks - 16);
        if (kind < 3) {
            if (block_request(&block, BLK_OUT, at * 8, base + page * PAGE, count * PAGE, 4 * PAGE) != 0)
                fail("write");
            for (u32 i = 0; i < count; i++)
                blocks_hold[at + i] = pages_hold[page + i];
            counts[0]++;
        } else if (kind < 6) {
            if (block_request(&block, BLK_IN, at * 8, base + page * PAGE, count * PAGE, 4 * PAGE) != 0)
                fail("read");
            for (u32 i = 0; i < count; i++)
                pages_hold[page + i] = blocks_hold[at + i];
            counts[1]++;
        } else {
            for (u32 i = 0; i < count; i++) {
                if (!check(page + i))
                    return 2;
                if (kind == 7)
                    fill(page + i, (u32)next_random(&random) | 1);
            }
            counts[2]++;
        }
        if (step % 4096 == 4095)
            print("TICK paged steps=%lu\n", step + 1);
    }
    for (u64 i = 0; i < pages; i++)
        if (!check(i))
            return 2;
    print("RESULT paged writes=%lu reads=%lu checks=%lu\n", counts[0], counts[1], counts[2]);
    return 0;
}
