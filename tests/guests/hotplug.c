/* PCI slots that change while it runs: assigns the BAR of what comes, writes and verifies a virtio disk, lets go of what the host wants back. */
#include "block.h"

#define ADDED 0x620
#define REMOVAL 0x624
#define EJECT 0x628
#define GENERATION 0x62c
#define PIECE 4096
#define PIECES 64

static struct block blocks[32];
static u8 buffer[PIECE] __attribute__((aligned(PIECE))), expected[PIECE];
static volatile u8 *ecam;
static u32 mine;            /* slots with a disk that was opened */

static volatile u8 *config_of(unsigned slot) { return ecam + (slot << 15); }
static u32 get(volatile u8 *at) { return *(volatile u32 *)at; }
static void put(volatile u8 *at, u32 value) { *(volatile u32 *)at = value; }

static void pattern(u8 *at, u64 seed)
{
    for (unsigned i = 0; i < PIECE / 8; i++)
        ((u64 *)at)[i] = next_random(&seed);
}

/* Starts the device anew: the kit has one set of rings for all. */
static void verify(unsigned slot, u64 salt)
{
    struct block *block = &blocks[slot];
    block_start(block);
    block->sectors = get64((const void *)block->device.config);
    for (u64 i = 0; i < PIECES; i++) {
        pattern(buffer, salt + i + slot * 1000 + 1);
        if (block_request(block, BLK_OUT, i * 97 * 8 % (block->sectors - 8), buffer, PIECE, 1024) != 0)
            fail("slot %u: write %lu", slot, i);
        if (block_request(block, BLK_IN, i * 97 * 8 % (block->sectors - 8), buffer, PIECE, 512) != 0)
            fail("slot %u: read %lu", slot, i);
        pattern(expected, salt + i + slot * 1000 + 1);
        if (memcmp(buffer, expected, PIECE) != 0)
            fail("slot %u: piece %lu is not what was written", slot, i);
    }
    if (block_request(block, BLK_FLUSH, 0, NULL, 0, 1) != 0)
        fail("slot %u: flush", slot);
}

static void added(unsigned slot)
{
    volatile u8 *config = config_of(slot);
    u32 id = get(config);
    if (id == 0xffffffff) {
        mine &= ~(1u << slot);
        print("GONE slot=%u\n", slot);
        return;
    }
    if (id != 0x10421af4)
        fail("slot %u: id 0x%x", slot, id);
    if (get(config + 0x10) != 0 || (get(config + 4) & 6))
        fail("slot %u does not come out of reset", slot);
    put(config + 0x10, 0xffffffff);
    u32 length = -(get(config + 0x10) & ~15u), at = 0xd0000000 + (slot << 20);
    if (length < 4096 || length > 1 << 20)
        fail("slot %u: BAR of %u bytes", slot, length);
    put(config + 0x10, at);
    put(config + 4, 6);
    memset(&blocks[slot], 0, sizeof blocks[slot]);
    if (!virtio_open(&blocks[slot].device, config))
        fail("slot %u: no virtio device", slot);
    verify(slot, 0);
    /* The BAR moves while the device is in use. */
    put(config + 4, 4);
    put(config + 0x10, at + 0x80000);
    put(config + 4, 6);
    virtio_open(&blocks[slot].device, config);
    verify(slot, 7);
    mine |= 1u << slot;
    print("ADDED slot=%u mib=%lu\n", slot, blocks[slot].sectors >> 11);
}

static void eject(unsigned slot)
{
    if (mine & 1u << slot)
        virtio_reset(&blocks[slot].device);
    out32(EJECT, 1u << slot);
    if (get(config_of(slot)) != 0xffffffff || (in32(EJECT) & 1u << slot))
        fail("slot %u is still there", slot);
    if ((mine & 1u << slot) && get(blocks[slot].device.common) != 0xffffffff)
        fail("slot %u: its BAR still answers", slot);
    mine &= ~(1u << slot);
    print("EJECTED slot=%u\n", slot);
}

static void write_until_gone(unsigned slot)
{
    volatile u8 *config = config_of(slot);
    block_start(&blocks[slot]);
    print("WRITING slot=%u\n", slot);
    while (get(config) != 0xffffffff) {
        struct desc *d = blocks[slot].queue.desc;
        static struct blk_header header = { .type = BLK_OUT };
        static volatile u8 status;
        d[0] = (struct desc){ (u64)&header, sizeof header, DESC_NEXT, 1 };
        d[1] = (struct desc){ (u64)buffer, PIECE, DESC_NEXT, 2 };
        d[2] = (struct desc){ (u64)&status, 1, DESC_WRITE, 0 };
        virtio_submit(&blocks[slot].queue, 0);
        virtio_kick_always(&blocks[slot].queue);
        while (virtio_take(&blocks[slot].queue, NULL) < 0 && get(config) != 0xffffffff)
            ;
    }
}

int main(struct start_info *info)
{
    args_init(info);
    bool keep = arg_number("keep", 0);
    acpi_init(info);
    const u8 *mcfg = (const u8 *)acpi_find("MCFG");
    if (!mcfg)
        fail("no MCFG");
    ecam = (volatile u8 *)get64(mcfg + 44);
    print("READY slots=0x%x\n", in32(EJECT));
    u64 salt = 100;
    for (;;) {
        u32 news = in32(ADDED);
        out32(ADDED, news);
        u32 wanted = in32(REMOVAL);
        out32(REMOVAL, wanted);
        for (unsigned slot = 0; slot < 32; slot++) {
            if (news & 1u << slot)
                added(slot);
            if ((wanted & 1u << slot) && keep)
                print("KEPT slot=%u\n", slot);
            else if (wanted & 1u << slot)
                eject(slot);
        }
        if (!(in8(0x3fd) & 1))
            continue;
        u8 told = in8(0x3f8);
        if (told == 'q')
            break;
        for (unsigned slot = 0; slot < 32; slot++) {
            if (told == 'v' && (mine & 1u << slot)) {
                verify(slot, salt++);
                print("VERIFIED slot=%u\n", slot);
            }
            if (told == 'e' && (in32(EJECT) & 1u << slot))
                eject(slot);
            if (told == 'w' && (mine & 1u << slot))
                write_until_gone(slot);
        }
    }
    print("RESULT hotplug generation=%u\n", in32(GENERATION));
    return 0;
}
