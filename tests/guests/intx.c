/* A disk without MSI-X: its interrupt pin on the I/O APIC pin that the command line names (pin=), without taking the interrupt: it stays pending in the local APIC's request register. */
#include "block.h"

#define FIRST_VECTOR 0x50
#define COMMAND 4
#define STATUS 6
#define NO_INTX 0x400
#define PENDING 8

static volatile u32 *ioapic = (volatile u32 *)0xfec00000, *apic = (volatile u32 *)0xfee00000;
static struct block block;
static u8 buffer[4096] __attribute__((aligned(4096)));
static unsigned pin, vector = FIRST_VECTOR;

static void ioapic_write(unsigned index, u32 value)
{
    ioapic[0] = index;
    ioapic[4] = value;
}

static bool requested(unsigned number) { return apic[(0x200 + number / 32 * 16) / 4] >> number % 32 & 1; }

/* An edge-triggered, masked entry first: that clears the entry's Remote IRR, which no EOI will, since the interrupt is never taken. */
static void open_pin(void)
{
    ioapic_write(0x10 + 2 * pin, 1u << 16);
    ioapic_write(0x11 + 2 * pin, apic[0x20 / 4] & 0xff000000);
    vector++;
    ioapic_write(0x10 + 2 * pin, 1u << 15 | vector);
}

/* The ISR register, from the capability of type 3. */
static volatile u8 *find_isr(volatile u8 *config)
{
    volatile u8 *bar = (volatile u8 *)((u64)(*(volatile u32 *)(config + 0x10) & ~15u) | (u64)*(volatile u32 *)(config + 0x14) << 32);
    for (u8 at = config[0x34]; at; at = config[at + 1])
        if (config[at] == 9 && config[at + 3] == 3)
            return bar + *(volatile u32 *)(config + at + 8);
    fail("no ISR register");
    return NULL;
}

static bool arrives(void)
{
    for (unsigned tries = 0; tries < 100000; tries++)
        if (requested(vector))
            return true;
    return false;
}

static void request(u32 round)
{
    memset(buffer, (int)round, sizeof buffer);
    if (block_request(&block, BLK_OUT, round * 8, buffer, sizeof buffer, sizeof buffer) != 0)
        fail("round %u: the request failed", round);
}

int main(struct start_info *info)
{
    args_init(info);
    pin = (unsigned)arg_number("pin", 20);
    apic[0xf0 / 4] = 0x1ff; /* software enable */
    block_open(&block, info);
    volatile u8 *config = block.device.function, *isr = find_isr(config);
    if (config[0x3d] != 1)
        fail("the interrupt pin register says %u", config[0x3d]);
    virtio_start(&block.device, &block.queue, 0); /* without EVENT_IDX, by which the kit wants no interrupts */
    block.queue.avail->flags = 0;
    for (u32 round = 0; round < 5; round++) {
        open_pin();
        request(round);
        if (!arrives())
            fail("round %u: no interrupt on pin %u, PCI status 0x%x, ISR %u", round, pin, *(volatile u16 *)(config + STATUS), *isr);
        if (!(*(volatile u16 *)(config + STATUS) & PENDING))
            fail("round %u: Interrupt Status is clear", round);
        if (*isr != 1)
            fail("round %u: the ISR register does not say queue", round);
        open_pin();
        if (requested(vector) || *(volatile u16 *)(config + STATUS) & PENDING || *isr != 0)
            fail("round %u: the interrupt stays after ISR was read", round);
    }
    *(volatile u16 *)(config + COMMAND) |= NO_INTX;
    request(5);
    while (!(*(volatile u16 *)(config + STATUS) & PENDING))
        ;
    if (requested(vector))
        fail("an interrupt from a pin that is disabled");
    *(volatile u16 *)(config + COMMAND) &= (u16)~NO_INTX;
    if (!arrives())
        fail("no interrupt when the pin was enabled again");
    if (*isr != 1)
        fail("the ISR register was lost");
    if (arg_number("hold", 0)) {
        request(6);
        while (!(*(volatile u16 *)(config + STATUS) & PENDING))
            ;
        print("PENDING\n");
        while (!(in8(0x3fd) & 1))
            ;
        open_pin();
        if (!arrives())
            fail("an interrupt that waited is lost");
        if (*isr != 1)
            fail("the ISR register was lost while the interrupt waited");
        open_pin();
        if (requested(vector))
            fail("an interrupt that waited stays after ISR was read");
        request(7);
        if (!arrives() || *isr != 1)
            fail("no interrupt after the one that waited");
    }
    virtio_reset(&block.device);
    open_pin();
    if (requested(vector))
        fail("the interrupt stays after the reset");
    print("RESULT intx rounds=6\n");
    return 0;
}
