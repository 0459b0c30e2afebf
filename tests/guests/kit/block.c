#include "block.h"

void block_open(struct block *block, const struct start_info *info)
{
    virtio_find(&block->device, info, 2);
    block_start(block);
}

void block_start(struct block *block)
{
    virtio_start(&block->device, &block->queue, VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT | BLK_F_FLUSH | BLK_F_DISCARD | BLK_F_WRITE_ZEROES);
    block->sectors = get64((const void *)block->device.config);
}

u8 block_request(struct block *block, u32 type, u64 sector, void *data, u32 length, u32 piece)
{
    static struct blk_header header;
    static volatile u8 status;
    struct desc *d = block->queue.desc;
    u16 n = 0;
    header = (struct blk_header){ .type = type, .sector = sector };
    status = 0xff;
    d[n++] = (struct desc){ (u64)&header, sizeof header, DESC_NEXT, 1 };
    u16 write = type == BLK_IN || type == BLK_GET_ID ? DESC_WRITE : 0;
    for (u32 at = 0; at < length; at += piece, n++)
        d[n] = (struct desc){ (u64)data + at, length - at < piece ? length - at : piece, DESC_NEXT | write, (u16)(n + 1) };
    d[n] = (struct desc){ (u64)&status, 1, DESC_WRITE, 0 };
    virtio_submit(&block->queue, 0);
    virtio_kick(&block->queue);
    while (virtio_take(&block->queue, NULL) < 0)
        if (virtio_status(&block->device) & VIRTIO_NEEDS_RESET)
            return 0xfe;
    return status;
}

#define PIECE 4096
#define PIECES 64

static void pattern(u8 *at, u64 seed)
{
    for (unsigned i = 0; i < PIECE / 8; i++)
        ((u64 *)at)[i] = next_random(&seed);
}

void block_verify(struct block *block, u64 seed)
{
    static u8 buffer[PIECE] __attribute__((aligned(PIECE))), expected[PIECE];
    block_start(block);
    block->sectors = get64((const void *)block->device.config);
    for (u64 i = 0; i < PIECES; i++) {
        u64 sector = i * 97 * 8 % (block->sectors - 8);
        pattern(buffer, seed + i);
        if (block_request(block, BLK_OUT, sector, buffer, PIECE, 1024) != 0)
            fail("write of piece %lu", i);
        if (block_request(block, BLK_IN, sector, buffer, PIECE, 512) != 0)
            fail("read of piece %lu", i);
        pattern(expected, seed + i);
        if (memcmp(buffer, expected, PIECE) != 0)
            fail("piece %lu is not what was written", i);
    }
    if (block_request(block, BLK_FLUSH, 0, NULL, 0, 1) != 0)
        fail("flush");
}
