/* virtio-console: says READY on the port, then sends back every line it gets, until one that starts with 'q'; 's' asks for the size of the console. */
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

static u32 decimal(u8 *at, u32 number)
{
    u32 length = number >= 10 ? decimal(at, number / 10) : 0;
    at[length] = (u8)('0' + number % 10);
    return length + 1;
}

/* cols and rows, virtio 1.2 section 5.3.4. */
static void tell_size(struct virtqueue *queue, const struct virtio_device *device)
{
    u8 text[32];
    u32 length = decimal(text, *(volatile u16 *)device->config);
    text[length++] = 'x';
    length += decimal(text + length, *(volatile u16 *)(device->config + 2));
    text[length++] = '\n';
    write(queue, text, length);
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
        if (length && in[0] == 's')
            tell_size(&queues[1], &device);
        else
            write(&queues[1], in, length);
        if (length && in[0] == 'q')
            return 0;
    }
}
