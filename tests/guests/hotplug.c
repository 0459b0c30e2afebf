/* PCI slots that change while it runs: assigns the BAR of what comes, writes and verifies a virtio disk, lets go of what the host wants back. */
#include "block.h"

#define PORTS(bus) (0x620 + 16 * (bus))
#define ADDED(bus) PORTS(bus)
#define REMOVAL(bus) (PORTS(bus) + 4)
#define EJECT(bus) (PORTS(bus) + 8)
#define GENERATION(bus) (PORTS(bus) + 12)
#define BUSES 6
#define PIECE 4096

static struct block blocks[BUSES][32];
static u8 buffer[PIECE] __attribute__((aligned(PIECE)));
static volatile u8 *ecam;
static u32 mine[BUSES];     /* slots with a disk that was opened */
static u32 window[BUSES];   /* where BARs of a bus can go */
static unsigned buses = 1;

static volatile u8 *config_of(unsigned bus, unsigned slot) { return ecam + ((u64)bus << 20) + (slot << 15); }
static u32 get(volatile u8 *at) { return *(volatile u32 *)at; }
static void put(volatile u8 *at, u32 value) { *(volatile u32 *)at = value; }

/* Bridges of bus 0, configured by whoever started this guest. */
static void find_buses(void)
{
    window[0] = 0xd0000000;
    for (unsigned slot = 0; slot < 32; slot++) {
        volatile u8 *config = config_of(0, slot);
        if (get(config) == 0xffffffff || (config[0xe] & 0x7f) != 1)
            continue;
        unsigned bus = config[0x19];
        u32 base = (u32)(*(volatile u16 *)(config + 0x20) & 0xfff0) << 16, limit = (u32)(*(volatile u16 *)(config + 0x22) & 0xfff0) << 16;
        if (bus != buses || bus >= BUSES || config[0x18] != 0 || config[0x1a] != bus || get(config + 8) >> 8 != 0x060400)
            fail("bridge %u: bus %u", slot, bus);
        if (limit < base + (31 << 20) || base < 0xc0000000 || (get(config + 4) & 6) != 6)
            fail("bridge %u: window 0x%x to 0x%x", slot, base, limit);
        window[bus] = base;
        buses++;
    }
}

static void say(const char *what, unsigned bus, unsigned slot)
{
    if (bus)
        print("%s bus=%u slot=%u", what, bus, slot);
    else
        print("%s slot=%u", what, slot);
}

static void verify(unsigned bus, unsigned slot, u64 salt) { block_verify(&blocks[bus][slot], salt + slot * 1000 + 1); }

static void added(unsigned bus, unsigned slot)
{
    volatile u8 *config = config_of(bus, slot);
    u32 id = get(config);
    if (id == 0xffffffff) {
        mine[bus] &= ~(1u << slot);
        say("GONE", bus, slot);
        print("\n");
        return;
    }
    if (id != 0x10421af4)
        fail("slot %u: id 0x%x", slot, id);
    if ((get(config + 0x10) & ~15u) != 0 || (get(config + 4) & 6))
        fail("slot %u does not come out of reset", slot);
    put(config + 0x10, 0xffffffff);
    u32 length = -(get(config + 0x10) & ~15u), at = window[bus] + (slot << 20);
    if (length < 4096 || length > 1 << 20)
        fail("slot %u: BAR of %u bytes", slot, length);
    put(config + 0x10, at);
    put(config + 4, 6);
    memset(&blocks[bus][slot], 0, sizeof blocks[bus][slot]);
    if (!virtio_open(&blocks[bus][slot].device, config))
        fail("slot %u: no virtio device", slot);
    verify(bus, slot, 0);
    /* The BAR moves while the device is in use. */
    put(config + 4, 4);
    put(config + 0x10, at + 0x80000);
    put(config + 4, 6);
    virtio_open(&blocks[bus][slot].device, config);
    verify(bus, slot, 7);
    mine[bus] |= 1u << slot;
    say("ADDED", bus, slot);
    print(" mib=%lu\n", blocks[bus][slot].sectors >> 11);
}

static void eject(unsigned bus, unsigned slot)
{
    if (mine[bus] & 1u << slot)
        virtio_reset(&blocks[bus][slot].device);
    out32(EJECT(bus), 1u << slot);
    if (get(config_of(bus, slot)) != 0xffffffff || (in32(EJECT(bus)) & 1u << slot))
        fail("slot %u is still there", slot);
    if ((mine[bus] & 1u << slot) && get(blocks[bus][slot].device.common) != 0xffffffff)
        fail("slot %u: its BAR still answers", slot);
    mine[bus] &= ~(1u << slot);
    say("EJECTED", bus, slot);
    print("\n");
}

static void write_until_gone(unsigned bus, unsigned slot)
{
    volatile u8 *config = config_of(bus, slot);
    block_start(&blocks[bus][slot]);
    say("WRITING", bus, slot);
    print("\n");
    while (get(config) != 0xffffffff) {
        struct desc *d = blocks[bus][slot].queue.desc;
        static struct blk_header header = { .type = BLK_OUT };
        static volatile u8 status;
        d[0] = (struct desc){ (u64)&header, sizeof header, DESC_NEXT, 1 };
        d[1] = (struct desc){ (u64)buffer, PIECE, DESC_NEXT, 2 };
        d[2] = (struct desc){ (u64)&status, 1, DESC_WRITE, 0 };
        virtio_submit(&blocks[bus][slot].queue, 0);
        virtio_kick_always(&blocks[bus][slot].queue);
        while (virtio_take(&blocks[bus][slot].queue, NULL) < 0 && get(config) != 0xffffffff)
            ;
    }
}

int main(struct start_info *info)
{
    args_init(info);
    bool keep = arg_number("keep", 0);
    acpi_init(info);
    const u8 *mcfg = (const u8 *)acpi_find("MCFG");
    if (!mcfg)
        fail("no MCFG");
    ecam = (volatile u8 *)get64(mcfg + 44);
    find_buses();
    print("READY slots=0x%x\n", in32(EJECT(0)));
    u64 salt = 100;
    for (;;) {
        for (unsigned bus = 0; bus < buses; bus++) {
            u32 news = in32(ADDED(bus));
            out32(ADDED(bus), news);
            u32 wanted = in32(REMOVAL(bus));
            out32(REMOVAL(bus), wanted);
            for (unsigned slot = 0; slot < 32 && (news | wanted); slot++) {
                if (news & 1u << slot)
                    added(bus, slot);
                if ((wanted & 1u << slot) && keep) {
                    say("KEPT", bus, slot);
                    print("\n");
                } else if (wanted & 1u << slot) {
                    eject(bus, slot);
                }
            }
        }
        if (!(in8(0x3fd) & 1))
            continue;
        u8 told = in8(0x3f8);
        if (told == 'q')
            break;
        for (unsigned bus = 0; bus < buses; bus++) {
            for (unsigned slot = 0; slot < 32; slot++) {
                if (told == 'v' && (mine[bus] & 1u << slot)) {
                    verify(bus, slot, salt++);
                    say("VERIFIED", bus, slot);
                    print("\n");
                }
                if (told == 'e' && (in32(EJECT(bus)) & 1u << slot))
                    eject(bus, slot);
                if (told == 'w' && (mine[bus] & 1u << slot))
                    write_until_gone(bus, slot);
            }
        }
    }
    print("RESULT hotplug generation=%u\n", in32(GENERATION(0)));
    return 0;
}
