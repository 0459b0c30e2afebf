/* virtio-console: says READY on the port, then sends back every line it gets, until one that starts with 'q'. */
#include "virtio.h"

static u8 in[64], out[64];

static void write(struct virtqueue *queue, const void *text, u32 length)
{
    memcpy(out, text, length);
    queue->desc[0] = (struct desc){ (u64)out, length, 0, 0 };
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
    virtio_find(&device, info, 3);
    virtio_start_queues(&device, queues, 2, VIRTIO_F_EVENT_IDX);
    write(&queues[1], "READY\n", 6);
    for (;;) {
        u32 length;
        queues[0].desc[0] = (struct desc){ (u64)in, sizeof in, DESC_WRITE, 0 };
        virtio_submit(&queues[0], 0);
        virtio_kick(&queues[0]);
        while (virtio_take(&queues[0], &length) < 0)
            ;
        write(&queues[1], in, length);
        if (length && in[0] == 'q')
            return 0;
    }
}
