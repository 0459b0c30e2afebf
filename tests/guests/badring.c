/* A hostile driver: breaks the ring of a virtio-blk in every way below, expects NEEDS_RESET, and proves that a reset heals the device. */
#include "block.h"

static struct block block;
static struct blk_header header;
static volatile u8 state;
static u8 data[4096] __attribute__((aligned(4096)));
static struct desc table[8], inner[8];

struct bad { const char *name; void (*build)(struct virtqueue *q); };

static void chain(struct desc *d, u64 address, u32 length, u16 flags, u16 next) { *d = (struct desc){ address, length, flags, next }; }

/* A good read of one sector. Each case breaks one thing in it, so that no other check of the device can answer for the one meant. */
static void good(struct desc *d)
{
    chain(d, (u64)&header, 16, DESC_NEXT, 1);
    chain(d + 1, (u64)data, 512, DESC_NEXT | DESC_WRITE, 2);
    chain(d + 2, (u64)&state, 1, DESC_WRITE, 0);
}

static void loop(struct virtqueue *q)
{
    chain(q->desc, (u64)&header, 16, DESC_NEXT, 1);
    chain(q->desc + 1, (u64)data, 512, DESC_NEXT | DESC_WRITE, 1);
    virtio_submit(q, 0);
}

static void outside(struct virtqueue *q)
{
    chain(q->desc, (u64)&header, 16, DESC_NEXT, 1);
    chain(q->desc + 1, 0xfff0000000ull, 512, DESC_NEXT | DESC_WRITE, 2);
    chain(q->desc + 2, (u64)data, 1, DESC_WRITE, 0);
    virtio_submit(q, 0);
}

static void wrap(struct virtqueue *q)
{
    chain(q->desc, (u64)&header, 16, DESC_NEXT, 1);
    chain(q->desc + 1, 0xffffffffffffff00ull, 4096, DESC_NEXT | DESC_WRITE, 2);
    chain(q->desc + 2, (u64)&state, 1, DESC_WRITE, 0);
    virtio_submit(q, 0);
}

static void next_index(struct virtqueue *q)
{
    chain(q->desc, (u64)&header, 16, DESC_NEXT, 0xfff0);
    virtio_submit(q, 0);
}

static void head_index(struct virtqueue *q) { virtio_submit(q, 0xfff0); }

/* One more than the queue holds; every entry of it names the good chain. */
static void avail_jump(struct virtqueue *q)
{
    good(q->desc);
    for (u32 i = 0; i <= q->size; i++)
        virtio_submit(q, 0);
}

static void nested_indirect(struct virtqueue *q)
{
    good(inner);
    chain(table, (u64)inner, 3 * sizeof inner[0], DESC_INDIRECT, 0);
    chain(q->desc, (u64)table, sizeof table[0], DESC_INDIRECT, 0);
    virtio_submit(q, 0);
}

static void odd_indirect(struct virtqueue *q)
{
    good(table);
    chain(q->desc, (u64)table, 3 * sizeof table[0] + 1, DESC_INDIRECT, 0);
    virtio_submit(q, 0);
}

static void zero_length(struct virtqueue *q)
{
    good(q->desc);
    chain(q->desc + 1, (u64)data, 0, DESC_NEXT | DESC_WRITE, 3);
    chain(q->desc + 3, (u64)data, 512, DESC_NEXT | DESC_WRITE, 2);
    virtio_submit(q, 0);
}

static void no_status(struct virtqueue *q)
{
    chain(q->desc, (u64)&header, 16, 0, 0);
    virtio_submit(q, 0);
}

static const struct bad cases[] = {
    { "loop", loop }, { "outside", outside }, { "wrap", wrap }, { "next", next_index }, { "head", head_index }, { "avail-jump", avail_jump },
    { "nested-indirect", nested_indirect }, { "odd-indirect", odd_indirect }, { "zero-length", zero_length }, { "no-status", no_status },
};

int main(struct start_info *info)
{
    args_init(info);
    block_open(&block, info);
    unsigned failures = 0, ran = 0;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char wanted[32];
        if (arg_text("case", wanted, sizeof wanted) && !arg_is("case", cases[i].name))
            continue;
        ran++;
        header = (struct blk_header){ .type = BLK_IN };
        cases[i].build(&block.queue);
        virtio_kick_always(&block.queue);
        bool needs_reset = false;
        for (u64 begin = rdtsc(); !needs_reset && rdtsc() - begin < 10000000000ull;)
            needs_reset = virtio_status(&block.device) & VIRTIO_NEEDS_RESET;
        block_open(&block, info);
        bool recovered = block_request(&block, BLK_IN, 0, data, 512, 512) == 0;
        print("RESULT badring case=%s needs_reset=%d recovered=%d\n", cases[i].name, needs_reset, recovered);
        failures += !needs_reset || !recovered;
    }
    return ran && !failures ? 0 : 1;
}
