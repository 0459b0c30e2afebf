/* virtio-vsock: with port= connects to that port of the host and says HELLO there; then echoes what connections to its port 7 bring, until one brings a 'q' first. */
#include "virtio.h"

#define BUFFERS 16
#define ROOM 4096

enum { REQUEST = 1, RESPONSE = 2, RST = 3, SHUTDOWN = 4, RW = 5, CREDIT_UPDATE = 6, CREDIT_REQUEST = 7 };
struct header { u64 source_cid, destination_cid; u32 source_port, destination_port, length; u16 type, operation; u32 flags, buffer, forwarded; } __attribute__((packed));

static struct { struct header header; u8 data[ROOM - sizeof(struct header)]; } in[BUFFERS] __attribute__((aligned(4096))), out __attribute__((aligned(4096)));
static struct virtqueue queues[2];
static struct virtio_device device;
static u64 cid;
static u32 forwarded;

static void send(u16 operation, u32 source, u32 destination, const void *data, u32 length)
{
    out.header = (struct header){ cid, 2, source, destination, length, 1, operation, operation == SHUTDOWN ? 3 : 0, 65536, forwarded };
    memcpy(out.data, data, length);
    queues[1].desc[0] = (struct desc){ (u64)&out, (u32)sizeof out.header + length, 0, 0 };
    virtio_submit(&queues[1], 0);
    virtio_kick(&queues[1]);
    while (virtio_take(&queues[1], NULL) < 0)
        ;
}

static void give(u16 slot)
{
    queues[0].desc[slot] = (struct desc){ (u64)&in[slot], ROOM, DESC_WRITE, 0 };
    virtio_submit(&queues[0], slot);
    virtio_kick(&queues[0]);
}

static int receive(void)
{
    int slot;
    while ((slot = virtio_take(&queues[0], NULL)) < 0)
        ;
    if (in[slot].header.destination_cid != cid || in[slot].header.source_cid != 2)
        fail("a packet from %lu to %lu", in[slot].header.source_cid, in[slot].header.destination_cid);
    return slot;
}

static void say_hello(u32 port)
{
    send(REQUEST, 99, port, NULL, 0);
    int slot = receive();
    if (in[slot].header.operation != RESPONSE)
        fail("the host answers %u", in[slot].header.operation);
    give((u16)slot);
    send(RW, 99, port, "HELLO\n", 6);
    send(SHUTDOWN, 99, port, NULL, 0);
    u16 operation;
    do {    /* the host's program may go first: then its own shutdown is on the way */
        slot = receive();
        operation = in[slot].header.operation;
        give((u16)slot);
    } while (operation == SHUTDOWN || operation == CREDIT_UPDATE);
    if (operation != RST)
        fail("the host ends with %u", operation);
}

int main(struct start_info *info)
{
    args_init(info);
    virtio_find(&device, info, 19);
    virtio_start_queues(&device, queues, 2, VIRTIO_F_EVENT_IDX);
    cid = get64((const void *)device.config);
    for (u16 i = 0; i < BUFFERS; i++)
        give(i);
    u32 port = (u32)arg_number("port", 0);
    if (port)
        say_hello(port);
    print("READY cid=%lu\n", cid);
    for (;;) {
        int slot = receive();
        struct header *h = &in[slot].header;
        u32 from = h->source_port, to = h->destination_port;
        bool last = h->operation == RW && in[slot].data[0] == 'q';
        if (h->operation == REQUEST && to == 7) {
            forwarded = 0;
            send(RESPONSE, to, from, NULL, 0);
        } else if (h->operation == RW) {
            forwarded += h->length;
            send(RW, to, from, in[slot].data, h->length);
        } else if (h->operation == CREDIT_REQUEST) {
            send(CREDIT_UPDATE, to, from, NULL, 0);
        } else if (h->operation == SHUTDOWN || h->operation == REQUEST) {
            send(RST, to, from, NULL, 0);
        }
        give((u16)slot);
        if (last)
            return 0;
    }
}
