/* virtio-mem: plugs and unplugs as the host asks, and says NOW each time. Plugged blocks carry a pattern that must last; from the second request on,
 * requests and answers themselves lie in plugged memory. keep= MiB are never given back; a byte on the serial port ends it. */
#include "virtio.h"

struct request { u16 type, pad[3]; u64 address; u16 blocks, pad2[3]; };
struct answer { u16 type, pad[3], state; };

static struct virtqueue queue;
static struct request request_low;
static struct answer answer_low;
static u64 plugged, block, start;

static u16 ask(u16 type, u64 address, u16 blocks)
{
    struct request *request = plugged && address != start ? (struct request *)(start + 4096) : &request_low;
    struct answer *answer = plugged && address != start ? (struct answer *)(start + 8192) : &answer_low;
    *request = (struct request){ .type = type, .address = address, .blocks = blocks };
    answer->type = 0xeeee;
    queue.desc[0] = (struct desc){ (u64)request, sizeof *request, DESC_NEXT, 1 };
    queue.desc[1] = (struct desc){ (u64)answer, sizeof *answer, DESC_WRITE, 0 };
    virtio_submit(&queue, 0);
    virtio_kick(&queue);
    while (virtio_take(&queue, NULL) < 0)
        ;
    return answer->type;
}

static void fill(u64 at)
{
    for (u64 page = 3; page < block / 4096; page += 16)     /* the first pages of the first block hold requests */
        if (*(volatile u64 *)(at + page * 4096) != 0)
            fail("new memory at 0x%lx is not zero", at + page * 4096);
        else
            *(volatile u64 *)(at + page * 4096) = at + page;
}

static void check(void)
{
    for (u64 at = start; at < start + plugged; at += block)
        for (u64 page = 3; page < block / 4096; page += 16)
            if (*(volatile u64 *)(at + page * 4096) != at + page)
                fail("memory at 0x%lx lost its content", at + page * 4096);
}

int main(struct start_info *info)
{
    struct virtio_device device;
    args_init(info);
    u64 keep = arg_number("keep", 0) << 20, said = ~0ull;
    virtio_find(&device, info, 24);
    virtio_start(&device, &queue, VIRTIO_F_EVENT_IDX | 3);
    block = *(volatile u64 *)device.config;
    start = *(volatile u64 *)(device.config + 16);
    print("MEM start=0x%lx size=%lu block=%lu node=%u\n", start, *(volatile u64 *)(device.config + 24), block, *(volatile u16 *)(device.config + 8));
    if (ask(0, start - block, 1) != 3 || ask(1, start, 1) != 3)
        fail("nonsense was not an error");
    for (;;) {
        u64 wanted = *(volatile u64 *)(device.config + 48);
        if (wanted < keep && plugged >= keep)
            wanted = keep;
        while (plugged < wanted) {
            if (ask(0, start + plugged, 1) != 0)
                fail("block at %lu was refused", plugged);
            fill(start + plugged);
            plugged += block;
        }
        while (plugged > wanted) {
            plugged -= block;
            if (ask(1, start + plugged, 1) != 0)
                fail("block at %lu was not taken back", plugged);
        }
        check();
        if (plugged != said) {
            said = plugged;
            print("NOW mib=%lu device=%lu\n", plugged >> 20, *(volatile u64 *)(device.config + 40) >> 20);
        }
        if (in8(0x3fd) & 1)
            break;
    }
    print("RESULT mem mib=%lu\n", plugged >> 20);
    return 0;
}
