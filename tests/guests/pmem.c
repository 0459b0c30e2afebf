/* virtio-pmem: the memory of its BAR is a file. Says what text it finds there, writes another behind 1 MiB, flushes; then moves the BAR to move= and looks again.
   With disk=1 it reads the first sector of a disk right into it, behind 1.5 MiB. */
#include "block.h"

static u32 flush_type, answer;

static void flush(struct virtqueue *queue)
{
    flush_type = 0;
    answer = 0xee;
    queue->desc[0] = (struct desc){ (u64)&flush_type, 4, DESC_NEXT, 1 };
    queue->desc[1] = (struct desc){ (u64)&answer, 4, DESC_WRITE, 0 };
    virtio_submit(queue, 0);
    virtio_kick(queue);
    while (virtio_take(queue, NULL) < 0)
        ;
    if (answer != 0)
        fail("flush: %u", answer);
}

/* The shared memory capability (4.1.4.7): region 0, its BAR and length. */
static u8 region(volatile u8 *function, u64 *length)
{
    for (u8 at = function[0x34]; at; at = function[at + 1])
        if (function[at] == 9 && function[at + 3] == 8 && function[at + 5] == 0) {
            *length = *(volatile u32 *)(function + at + 12) | (u64)*(volatile u32 *)(function + at + 20) << 32;
            return function[at + 4];
        }
    fail("no shared memory region");
}

int main(struct start_info *info)
{
    static struct virtqueue queue;
    struct virtio_device device;
    u64 length;
    args_init(info);
    virtio_find(&device, info, 27);
    virtio_start(&device, &queue, 1);
    u8 bar = region(device.function, &length);
    volatile u32 *registers = (volatile u32 *)(device.function + 0x10 + 4 * bar);
    char *memory = (char *)((u64)registers[1] << 32 | (registers[0] & ~15u));
    const u64 *config = (const u64 *)device.config;
    print("PMEM bar=%u at=0x%lx length=0x%lx config=%u text=%s\n", bar, (u64)memory, length, config[0] == (u64)memory && config[1] == length, memory);
    memcpy(memory + (1 << 20), "written by the guest", 21);
    flush(&queue);
    u64 move = arg_number("move", 0);
    if (move) {
        *(volatile u16 *)(device.function + 4) &= ~2u;
        registers[0] = (u32)move;
        registers[1] = (u32)(move >> 32);
        *(volatile u16 *)(device.function + 4) |= 2;
        print("MOVED text=%s\n", (char *)move + (1 << 20));
    }
    if (arg_number("disk", 0)) {
        static struct block block;
        block_open(&block, info);
        if (block_request(&block, BLK_IN, 0, memory + (3 << 19), 512, 512) != 0)
            fail("reading a disk into persistent memory");
        print("DISK text=%s\n", memory + (3 << 19));
    }
    print("RESULT pmem\n");
    return 0;
}
