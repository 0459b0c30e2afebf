/* virtio-net; its address is 192.0.2.HOST, host= (2). mode=answer (default): ARP, ping, UDP echo (port 7), a verified stream both ways (port 5001), the end (port 9).
 * mode=send: frames of size= for seconds=; mode=receive: counts what comes for seconds= after the first frame. */
#include "virtio.h"

#define BUFFERS 128
#define ROOM 2048
#define HEADER 12
#define F_MAC (1ull << 5)
#define F_MRG_RXBUF (1ull << 15)

struct ethernet { u8 to[6], from[6]; u16 type; } __attribute__((packed));
struct arp { u16 hardware, protocol; u8 sizes[2]; u16 operation; u8 sender_mac[6], sender[4], target_mac[6], target[4]; } __attribute__((packed));
struct ip { u8 version, service; u16 length, id, fragment; u8 ttl, protocol; u16 sum; u8 from[4], to[4]; } __attribute__((packed));
struct udp { u16 from, to, length, sum; } __attribute__((packed));

static u8 in[BUFFERS][ROOM] __attribute__((aligned(4096))), out[BUFFERS][ROOM] __attribute__((aligned(4096)));
static struct virtqueue queues[2];
static struct virtio_device device;
static u8 mac[6], address[4] = { 192, 0, 2, 2 };
static bool free_slots[BUFFERS];
static u64 packets, bytes, bad;

static u16 swap(u16 v) { return (u16)(v << 8 | v >> 8); }

static void give(u16 slot)
{
    queues[0].desc[slot] = (struct desc){ (u64)in[slot], ROOM, DESC_WRITE, 0 };
    virtio_submit(&queues[0], slot);
}

static u16 free_slot(void)
{
    for (;;) {
        int slot;
        while ((slot = virtio_take(&queues[1], NULL)) >= 0)
            free_slots[slot] = true;
        for (u16 i = 0; i < BUFFERS; i++)
            if (free_slots[i]) {
                free_slots[i] = false;
                return i;
            }
    }
}

/* length: of the frame, which lies behind the header of the slot. */
static void send(u16 slot, u32 length)
{
    memset(out[slot], 0, HEADER);
    queues[1].desc[slot] = (struct desc){ (u64)out[slot], HEADER + length, 0, 0 };
    virtio_submit(&queues[1], slot);
    virtio_kick(&queues[1]);
}

static void pattern(u8 *at, u32 length, u64 seed)
{
    u64 state = seed ? seed : 1;
    for (u32 i = 0; i < length; i += 8) {
        u64 word = next_random(&state);
        memcpy(at + i, &word, length - i < 8 ? length - i : 8);
    }
}

/* Payload: a seed, then its pattern. The answer is as long, with the seed after it. */
static void stream(u8 *payload, u32 length)
{
    static u8 expected[ROOM];
    u64 seed;
    if (length < 8) {
        bad++;
        return;
    }
    memcpy(&seed, payload, 8);
    pattern(expected, length - 8, seed);
    if (memcmp(expected, payload + 8, length - 8) != 0)
        bad++;
    packets++;
    bytes += length;
    seed++;
    memcpy(payload, &seed, 8);
    pattern(payload + 8, length - 8, seed);
}

/* Turns the frame into its answer; false when there is none. */
static bool answer(u8 *frame, u32 length, bool *over)
{
    struct ethernet *e = (struct ethernet *)frame;
    if (length < 14 + 28)
        return false;
    if (e->type == swap(0x0806)) {
        struct arp *a = (struct arp *)(e + 1);
        if (a->operation != swap(1) || memcmp(a->target, address, 4) != 0)
            return false;
        a->operation = swap(2);
        memcpy(a->target_mac, a->sender_mac, 6);
        memcpy(a->target, a->sender, 4);
        memcpy(a->sender_mac, mac, 6);
        memcpy(a->sender, address, 4);
    } else if (e->type == swap(0x0800)) {
        struct ip *ip = (struct ip *)(e + 1);
        u8 *body = (u8 *)(ip + 1);
        u32 total = swap(ip->length);
        if (ip->version != 0x45 || memcmp(ip->to, address, 4) != 0 || total + 14 > length || total < 28)
            return false;
        memcpy(ip->to, ip->from, 4);    /* the sum stays: the same words in another order */
        memcpy(ip->from, address, 4);
        if (ip->protocol == 1 && body[0] == 8) {
            body[0] = 0;
            u32 sum = swap(*(u16 *)(body + 2)) + 0x0800u;
            *(u16 *)(body + 2) = swap((u16)(sum + (sum >> 16)));
        } else if (ip->protocol == 17) {
            struct udp *udp = (struct udp *)body;
            u16 port = swap(udp->to);
            if (port == 9)
                *over = true;
            if (port == 5001) {
                stream(body + 8, total - 28);
                udp->sum = 0;
            } else if (port != 7 && port != 9) {
                return false;
            }
            udp->to = udp->from;
            udp->from = swap(port);
        } else {
            return false;
        }
    } else {
        return false;
    }
    memcpy(e->to, e->from, 6);
    memcpy(e->from, mac, 6);
    return true;
}

static int answers(void)
{
    bool over = false;
    print("READY mac=%02x:%02x:%02x:%02x:%02x:%02x features=0x%lx\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], device.features);
    while (!over) {
        u32 length;
        int slot = virtio_take(&queues[0], &length);
        if (slot < 0) {
            if (virtio_status(&device) & VIRTIO_NEEDS_RESET)
                fail("the device needs a reset");
            continue;
        }
        if (in[slot][10] != 1 || in[slot][11] != 0)
            fail("a frame of %u bytes in %u buffers", length, in[slot][10]);
        u16 to = free_slot();
        memcpy(out[to] + HEADER, in[slot] + HEADER, length - HEADER);
        give((u16)slot);
        virtio_kick(&queues[0]);
        if (answer(out[to] + HEADER, length - HEADER, &over))
            send(to, length - HEADER);
        else
            free_slots[to] = true;
    }
    while (queues[1].used->index != queues[1].next_avail)
        ;
    print("RESULT net packets=%lu bytes=%lu bad=%lu\n", packets, bytes, bad);
    return bad != 0;
}

static void report(const char *mode, u32 size, u64 frames, u64 cycles)
{
    print("RESULT net mode=%s size=%u frames=%lu cycles=%lu us=%lu kicks=%lu\n", mode, size, frames, cycles, cycles / (tsc_khz() / 1000), queues[0].kicks + queues[1].kicks);
}

static int sends(u64 limit, u32 size)
{
    u64 frames = 0, begin, cycles;
    struct ethernet header = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, { 0 }, swap(0x88b5) };    /* local experimental */
    memcpy(header.from, mac, 6);
    if (size < 60 || size > ROOM - HEADER)
        fail("size %u is out of range", size);
    for (u16 i = 0; i < BUFFERS; i++) {
        memcpy(out[i] + HEADER, &header, sizeof header);
        queues[1].desc[i] = (struct desc){ (u64)out[i], HEADER + size, 0, 0 };
        virtio_submit(&queues[1], i);
    }
    begin = rdtsc();
    virtio_kick(&queues[1]);
    do {
        int slot, taken = 0;
        while ((slot = virtio_take(&queues[1], NULL)) >= 0) {
            frames++;
            taken++;
            virtio_submit(&queues[1], (u16)slot);
        }
        if (taken)
            virtio_kick(&queues[1]);
        cycles = rdtsc() - begin;
    } while (cycles < limit);
    report("send", size, frames, cycles);
    return 0;
}

static int receives(u64 limit)
{
    u64 frames = 0, begin = 0, cycles = 0;
    u32 length, size = 0;
    print("READY\n");
    do {
        int slot, taken = 0;
        while ((slot = virtio_take(&queues[0], &length)) >= 0) {
            if (length > size)
                size = length;
            frames++;
            taken++;
            give((u16)slot);
        }
        if (taken) {
            virtio_kick(&queues[0]);
            if (!begin && length > 500) {   /* the stream, not the host's neighbour discovery */
                begin = rdtsc();
                frames = 0;
            }
        }
        if (begin)
            cycles = rdtsc() - begin;
    } while (cycles < limit);
    report("receive", size - HEADER, frames, cycles);
    return 0;
}

int main(struct start_info *info)
{
    args_init(info);
    virtio_find(&device, info, 1);
    virtio_start_queues(&device, queues, 2, VIRTIO_F_EVENT_IDX | F_MAC | F_MRG_RXBUF);
    for (int i = 0; i < 6; i++)
        mac[i] = device.config[i];
    for (u16 i = 0; i < BUFFERS; i++) {
        give(i);
        free_slots[i] = true;
    }
    virtio_kick(&queues[0]);
    address[3] = (u8)arg_number("host", 2);
    u64 limit = arg_number("seconds", 2) * tsc_khz() * 1000;
    if (arg_is("mode", "send"))
        return sends(limit, (u32)arg_number("size", 1514));
    if (arg_is("mode", "receive"))
        return receives(limit);
    return answers();
}
