/* virtio-blk. mode=verify (default): random requests against a model of the disk, requests= of them, or with 0 until a byte comes on the serial port; mode=bench: op= depth= size= seconds= requests a second;
   mode=text: whether it can write, and what texts begin at sectors first=, every= further, count= of them; again for each byte on the serial port, until 'q';
   mode=grow: waits until the disk is larger than at first, and writes and reads its new last block. */
#include "block.h"

#define BLOCK 4096
#define BLOCKS 4096
#define SLOTS 64

static struct block block;
static u32 seeds[BLOCKS];               /* what each block holds: 0 zeros, UNKNOWN anything, else the seed of its pattern */
static u8 buffer[8 * BLOCK] __attribute__((aligned(BLOCK)));
static u8 slots[SLOTS][16 * BLOCK] __attribute__((aligned(BLOCK)));
static struct blk_header headers[SLOTS];
static volatile u8 states[SLOTS];

#define UNKNOWN 0xffffffffu

static void fill(u8 *at, u32 seed)
{
    u64 state = seed ? seed : 1;
    for (unsigned i = 0; i < BLOCK / 8; i++)
        ((u64 *)at)[i] = seed ? next_random(&state) : 0;
}

static void check(const u8 *at, u32 number)
{
    static u8 expected[BLOCK];
    if (seeds[number] == UNKNOWN)
        return;
    fill(expected, seeds[number]);
    if (memcmp(at, expected, BLOCK) != 0)
        fail("block %u is not what was written", number);
}

static void must(u8 status, const char *what)
{
    if (status != 0)
        fail("%s: status %u", what, status);
}

static int verify(void)
{
    u64 random = arg_number("seed", 42), requests = arg_number("requests", 2000);
    u32 blocks = (u32)(block.sectors / 8 < BLOCKS ? block.sectors / 8 : BLOCKS), counts[5] = { 0 };
    char id[21] = { 0 };
    u8 status = block_request(&block, BLK_GET_ID, 0, buffer, 20, 20);
    must(status, "get-id");
    memcpy(id, buffer, 20);
    print("DISK sectors=%lu id=%s features=0x%lx\n", block.sectors, id, block.device.features);
    for (u32 i = 0; i < BLOCKS; i++)
        seeds[i] = UNKNOWN;
    for (u64 r = 0; requests ? r < requests : r % 16 || !(in8(0x3fd) & 1); r++) {
        u32 count = 1 + (u32)(next_random(&random) % 8), first = (u32)(next_random(&random) % (blocks - 8));
        u32 piece = 512u << next_random(&random) % 4, kind = (u32)(next_random(&random) % 16);
        struct { u64 sector; u32 sectors, flags; } range = { first * 8, count * 8, 0 };
        if (kind < 8) {
            for (u32 i = 0; i < count; i++)
                fill(buffer + i * BLOCK, seeds[first + i] = (u32)next_random(&random) | 1);
            must(block_request(&block, BLK_OUT, first * 8, buffer, count * BLOCK, piece), "write");
            counts[0]++;
        } else if (kind < 13) {
            memset(buffer, 0xa5, count * BLOCK);
            must(block_request(&block, BLK_IN, first * 8, buffer, count * BLOCK, piece), "read");
            for (u32 i = 0; i < count; i++)
                check(buffer + i * BLOCK, first + i);
            counts[1]++;
        } else if (kind == 13 && (block.device.features & BLK_F_FLUSH)) {
            must(block_request(&block, BLK_FLUSH, 0, NULL, 0, 1), "flush");
            counts[2]++;
        } else if (kind == 14 && (block.device.features & BLK_F_WRITE_ZEROES)) {
            must(block_request(&block, BLK_WRITE_ZEROES, 0, &range, 16, 16), "write-zeroes");
            for (u32 i = 0; i < count; i++)
                seeds[first + i] = 0;
            counts[3]++;
        } else if (kind == 15 && (block.device.features & BLK_F_DISCARD)) {
            must(block_request(&block, BLK_DISCARD, 0, &range, 16, 16), "discard");
            for (u32 i = 0; i < count; i++)
                seeds[first + i] = UNKNOWN;
            counts[4]++;
        }
    }
    for (u32 i = 0; i < blocks; i++) {
        must(block_request(&block, BLK_IN, (u64)i * 8, buffer, BLOCK, BLOCK), "read back");
        check(buffer, i);
    }
    if (block_request(&block, BLK_IN, block.sectors, buffer, 512, 512) == 0)
        fail("a read beyond the end was answered with success");
    if (block_request(&block, 77, 0, buffer, 512, 512) != 2)
        fail("an unknown request was not answered with UNSUPP");
    print("RESULT blk verify=ok writes=%u reads=%u flushes=%u zeroes=%u discards=%u\n", counts[0], counts[1], counts[2], counts[3], counts[4]);
    return 0;
}

static void submit(u32 slot, u32 size, u64 *random)
{
    headers[slot].sector = next_random(random) % (block.sectors * 512 / size) * (size / 512);
    virtio_submit(&block.queue, (u16)(slot * 3));
}

static int bench(void)
{
    bool write = arg_is("op", "write");
    u32 depth = (u32)arg_number("depth", 1), size = (u32)arg_number("size", BLOCK);
    u64 khz = tsc_khz(), random = 7, requests = 0, limit = arg_number("seconds", 2) * khz * 1000;
    if (!khz)
        fail("the TSC rate is unknown: give tsc_khz=");
    if (!depth || depth > SLOTS || depth * 3 > block.queue.size || !size || size > sizeof slots[0] || size % 512)
        fail("depth %u or size %u is out of range", depth, size);
    for (u16 i = 0; i < depth; i++) {
        struct desc *d = block.queue.desc + i * 3;
        headers[i].type = write ? BLK_OUT : BLK_IN;
        d[0] = (struct desc){ (u64)&headers[i], sizeof headers[i], DESC_NEXT, (u16)(i * 3 + 1) };
        d[1] = (struct desc){ (u64)slots[i], size, (u16)(DESC_NEXT | (write ? 0 : DESC_WRITE)), (u16)(i * 3 + 2) };
        d[2] = (struct desc){ (u64)&states[i], 1, DESC_WRITE, 0 };
        submit(i, size, &random);
    }
    u64 begin = rdtsc(), cycles;
    virtio_kick(&block.queue);
    do {
        int head, taken = 0;
        while ((head = virtio_take(&block.queue, NULL)) >= 0) {
            must(states[head / 3], write ? "write" : "read");
            requests++;
            taken++;
            submit((u32)head / 3, size, &random);
        }
        if (taken)
            virtio_kick(&block.queue);
        cycles = rdtsc() - begin;
    } while (cycles < limit);
    print("RESULT blk op=%s depth=%u size=%u requests=%lu cycles=%lu us=%lu kicks=%lu\n", write ? "write" : "read", depth, size, requests, cycles, cycles / (khz / 1000), block.queue.kicks);
    return 0;
}

static int grow(void)
{
    u64 before = block.sectors, now;
    if (block_request(&block, BLK_OUT, before, buffer, BLOCK, BLOCK) == 0)
        fail("a write beyond the end was answered with success");
    print("READY sectors=%lu\n", before);
    while ((now = *(volatile u64 *)block.device.config) == before)
        ;
    fill(buffer, 7);
    must(block_request(&block, BLK_OUT, now - BLOCK / 512, buffer, BLOCK, BLOCK), "write");
    memset(buffer, 0, BLOCK);
    must(block_request(&block, BLK_IN, now - BLOCK / 512, buffer, BLOCK, BLOCK), "read");
    fill(buffer + BLOCK, 7);
    if (memcmp(buffer, buffer + BLOCK, BLOCK) != 0)
        fail("the new last block is not what was written");
    if (block_request(&block, BLK_IN, now, buffer, BLOCK, BLOCK) == 0)
        fail("a read beyond the new end was answered with success");
    print("RESULT blk grow=ok sectors=%lu\n", now);
    return 0;
}

static int text(void)
{
    u64 first = arg_number("first", 0), every = arg_number("every", 4), count = arg_number("count", 1);
    for (;;) {
        print("TEXT write=%u\n", block_request(&block, BLK_OUT, 0, buffer, 512, 512));
        for (u64 i = 0; i < count; i++) {
            memset(buffer, 0, sizeof buffer);
            must(block_request(&block, BLK_IN, first + i * every, buffer, every * 512, every * 512), "read");
            buffer[sizeof buffer - 1] = 0;
            print("TEXT %s\n", buffer);
        }
        print("TEXT end\n");
        while (!(in8(0x3fd) & 1))
            ;
        if (in8(0x3f8) == 'q')
            return 0;
    }
}

int main(struct start_info *info)
{
    args_init(info);
    block_open(&block, info);
    return arg_is("mode", "bench") ? bench() : arg_is("mode", "grow") ? grow() : arg_is("mode", "text") ? text() : verify();
}
