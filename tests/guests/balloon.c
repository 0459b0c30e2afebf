/* virtio-balloon: fills mib= of memory, puts it into the balloon, reads it back as zeros. Says FILLED and INFLATED, each time waiting for a byte on the serial port. */
#include "virtio.h"

#define BATCH 256

static u32 frames[BATCH];

static void wait_for_host(void)
{
    while (!(in8(0x3fd) & 1))
        ;
    in8(0x3f8);
}

static void send(struct virtqueue *queue, u64 first)
{
    for (u32 i = 0; i < BATCH; i++)
        frames[i] = (u32)(first + (i ^ 5));     /* not in order */
    queue->desc[0] = (struct desc){ (u64)frames, sizeof frames, 0, 0 };
    virtio_submit(queue, 0);
    virtio_kick(queue);
    while (virtio_take(queue, NULL) < 0)
        ;
}

int main(struct start_info *info)
{
    static struct virtqueue queues[2];
    struct virtio_device device;
    args_init(info);
    u64 mib = arg_number("mib", 64), base = arg_number("base", 64ull << 20);
    volatile u64 *memory = (volatile u64 *)base;
    virtio_find(&device, info, 5);
    virtio_start_queues(&device, queues, 2, VIRTIO_F_EVENT_IDX);
    for (u64 page = 0; page < mib * 256; page++)
        memory[page * 512] = page + 1;
    print("FILLED\n");
    wait_for_host();
    for (u64 batch = 0; batch < mib; batch++)
        send(&queues[0], base / 4096 + batch * BATCH);
    *(volatile u32 *)(device.config + 4) = (u32)(mib * 256);
    print("INFLATED target=%u\n", get32((const void *)device.config));
    wait_for_host();
    for (u64 batch = 0; batch < mib; batch++)
        send(&queues[1], base / 4096 + batch * BATCH);
    for (u64 page = 0; page < mib * 256; page++)
        if (memory[page * 512] != 0)
            fail("page %lu kept its content", page);
    *(volatile u32 *)(device.config + 4) = 0;
    print("RESULT balloon mib=%lu\n", mib);
    return 0;
}
