/* virtio-blk requests (virtio 1.2 section 5.2.6) over kit/virtio.h. */
#pragma once
#include "virtio.h"

enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_WRITE_ZEROES = 13 };
#define BLK_F_FLUSH (1ull << 9)
#define BLK_F_DISCARD (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

struct block {
    struct virtio_device device;
    struct virtqueue queue;
    u64 sectors;
};

struct blk_header { u32 type, reserved; u64 sector; };

void block_open(struct block *block, const struct start_info *info);
/* The same for a device that was opened. */
void block_start(struct block *block);
/* One request, alone in the queue, its data split into pieces of at most piece bytes; returns the status byte. */
u8 block_request(struct block *block, u32 type, u64 sector, void *data, u32 length, u32 piece);
/* Starts the device anew (there is one set of rings for all), writes pieces all over the disk and reads each back; ends the guest when one differs. */
void block_verify(struct block *block, u64 seed);
