/* The interrupt of PCI hotplug to a guest that unmasks its pin late, without taking it: it stays pending in the local APIC's request register. */
#include "kit.h"

#define ADDED 0x620
#define PIN 23
#define FIRST_VECTOR 0x50

static volatile u32 *ioapic = (volatile u32 *)0xfec00000, *apic = (volatile u32 *)0xfee00000;

static void ioapic_write(unsigned index, u32 value)
{
    ioapic[0] = index;
    ioapic[4] = value;
}

static bool requested(unsigned vector) { return apic[(0x200 + vector / 32 * 16) / 4] >> vector % 32 & 1; }

/* An edge-triggered, masked entry first: that clears the entry's Remote IRR, which no EOI will, since the interrupt is never taken. */
static void mask(void)
{
    ioapic_write(0x10 + 2 * PIN, 1u << 16);
    ioapic_write(0x11 + 2 * PIN, apic[0x20 / 4] & 0xff000000);
}

static void unmask(unsigned vector) { ioapic_write(0x10 + 2 * PIN, 1u << 15 | vector); }

static void wait_for(u8 byte)
{
    while (!(in8(0x3fd) & 1) || in8(0x3f8) != byte)
        ;
}

int main(struct start_info *info)
{
    (void)info;
    apic[0xf0 / 4] = 0x1ff; /* software enable */
    mask();
    for (unsigned round = 0; round < 3; round++) {
        unsigned vector = FIRST_VECTOR + 2 * round;
        print("MASKED\n");
        wait_for('u'); /* the host plugged something in meanwhile */
        unmask(vector);
        for (unsigned tries = 0; !requested(vector); tries++)
            if (tries == 1000)
                fail("round %u: the interrupt was lost while the pin was masked", round);
        u32 news = in32(ADDED);
        if (news == 0)
            fail("round %u: an interrupt without news", round);
        out32(ADDED, news);
        mask();
        unmask(vector + 1);
        if (requested(vector + 1))
            fail("round %u: the interrupt stays after the registers were acknowledged", round);
        mask();
        print("SEEN added=0x%x\n", news);
    }
    return 0;
}
