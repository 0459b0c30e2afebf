/*
 * PCI Express root ports with hot-plug, as a driver of ports that polls (PCI Express base spec 6.7): gives power to what comes, writes and verifies
 * a virtio disk, and takes the power of what the host wants back.
 */
#include "block.h"

#define PORTS_MAX 32
enum { LINK_STATUS = 0x12, SLOT_CAPABILITIES = 0x14, SLOT_CONTROL = 0x18, SLOT_STATUS = 0x1a };
enum { LINK_ACTIVE = 0x2000, HOTPLUG_WITH_POWER = 0x53, POWER_OFF = 0x400, LIT = 0x100, BLINKS = 0x200, DARK = 0x300 };
enum { BUTTON = 1, PRESENCE_CHANGED = 8, PRESENT = 0x40, LINK_CHANGED = 0x100 };

static struct port {
    volatile u8 *express;   /* its PCI Express capability */
    volatile u8 *device;    /* configuration space of what is behind it */
    u32 window, bus;
    bool known;             /* a device with power */
    bool opened;            /* a disk that was verified */
    struct block block;
} ports[PORTS_MAX];
static unsigned count;
static volatile u8 *ecam;

static u16 read16(volatile u8 *at) { return *(volatile u16 *)at; }
static void write16(volatile u8 *at, u16 value) { *(volatile u16 *)at = value; }
static u32 read32(volatile u8 *at) { return *(volatile u32 *)at; }
static void write32(volatile u8 *at, u32 value) { *(volatile u32 *)at = value; }
static void say(const char *what, const struct port *port) { print("%s bus=%u\n", what, port->bus); }

static volatile u8 *capability(volatile u8 *config, u8 id)
{
    u8 at = config[0x34];
    while (at != 0 && config[at] != id)
        at = config[at + 1];
    return at == 0 ? NULL : config + at;
}

/* Whether the slot is as it has to be: there is a device behind the port exactly while it has one with power. */
static bool is_linked(const struct port *port)
{
    u16 status = read16(port->express + SLOT_STATUS), control = read16(port->express + SLOT_CONTROL);
    bool linked = read16(port->express + LINK_STATUS) & LINK_ACTIVE, there = read32(port->device) != 0xffffffff;
    if (linked != there || linked != ((status & PRESENT) && !(control & POWER_OFF)))
        fail("bus %u: link %u, device %u, slot status 0x%x, control 0x%x", port->bus, linked, there, status, control);
    return linked;
}

static void find_port(volatile u8 *config)
{
    volatile u8 *express = capability(config, 0x10);
    if (!express || read16(express + 2) != 0x142 || count == PORTS_MAX)
        fail("no root port with a slot: 0x%x", express ? read16(express + 2) : 0);
    struct port *port = &ports[count++];
    port->express = express;
    port->bus = config[0x19];
    port->device = ecam + ((u64)port->bus << 20);
    port->window = (u32)(read16(config + 0x20) & 0xfff0) << 16;
    u32 slot = read32(express + SLOT_CAPABILITIES);
    if (port->bus != count || config[0x18] != 0 || config[0x1a] != port->bus || slot >> 19 != port->bus)
        fail("port %u: bus %u, slot %u", count, port->bus, slot >> 19);
    if ((slot & 0x7f) != HOTPLUG_WITH_POWER || read16(config + 0x22) != read16(config + 0x20) || (read32(config + 4) & 6) != 6)
        fail("port %u: slot 0x%x, window 0x%x", count, slot, read32(config + 0x20));
    port->known = is_linked(port);
}

static void find_ports(void)
{
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned function = 0; function < 8; function++) {
            volatile u8 *config = ecam + (slot << 15) + (function << 12);
            if (read32(config) == 0xffffffff)
                break;
            if ((config[0xe] & 0x7f) == 1)
                find_port(config);
            if (function == 0 && !(config[0xe] & 0x80))
                break;
        }
    }
}

static void open(struct port *port)
{
    volatile u8 *config = port->device, *express = capability(config, 0x10);
    if (read32(config) != 0x10421af4 || !express || read16(express + 2) != 2)
        fail("bus %u: 0x%x is no disk that is an endpoint", port->bus, read32(config));
    if ((read32(config + 0x10) & ~15u) != 0 || (read32(config + 4) & 6))
        fail("bus %u: it does not come out of reset", port->bus);
    write32(config + 0x10, port->window);
    write32(config + 4, 6);
    memset(&port->block, 0, sizeof port->block);
    if (!virtio_open(&port->block.device, config))
        fail("bus %u: no virtio device", port->bus);
    block_verify(&port->block, port->bus * 1000);
    port->known = port->opened = true;
    print("ADDED bus=%u mib=%lu\n", port->bus, port->block.sectors >> 11);
}

static void power(struct port *port, u16 control)
{
    write16(port->express + SLOT_CONTROL, BLINKS | control);
    if (is_linked(port) == !!(control & POWER_OFF))
        fail("bus %u: its power does nothing", port->bus);
}

static void eject(struct port *port)
{
    if (port->opened)
        virtio_reset(&port->block.device);
    power(port, POWER_OFF);
    if (!(read16(port->express + SLOT_STATUS) & PRESENT))
        fail("bus %u: taken before its indicator was dark", port->bus);
    write16(port->express + SLOT_CONTROL, DARK | POWER_OFF);
    if (read16(port->express + SLOT_STATUS) & PRESENT)
        fail("bus %u is still there", port->bus);
    if (port->opened && read32(port->block.device.common) != 0xffffffff)
        fail("bus %u: its BAR still answers", port->bus);
    port->known = port->opened = false;
    say("EJECTED", port);
}

static void look(struct port *port, bool keep)
{
    u16 events = read16(port->express + SLOT_STATUS) & (BUTTON | PRESENCE_CHANGED | LINK_CHANGED);
    if (events == 0)
        return;
    write16(port->express + SLOT_STATUS, events);
    bool present = read16(port->express + SLOT_STATUS) & PRESENT;
    if (!present && port->known) {
        port->known = port->opened = false;
        write16(port->express + SLOT_CONTROL, DARK | POWER_OFF);
        say("GONE", port);
    } else if (present && !port->known) {
        power(port, 0);
        open(port);
        write16(port->express + SLOT_CONTROL, LIT);
    } else if (present && (events & BUTTON) && keep) {
        say("KEPT", port);
    } else if (present && (events & BUTTON)) {
        eject(port);
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
    find_ports();
    print("READY ports=%u\n", count);
    u64 salt = 5;
    for (;;) {
        for (unsigned i = 0; i < count; i++)
            look(&ports[i], keep);
        if (!(in8(0x3fd) & 1))
            continue;
        u8 told = in8(0x3f8);
        if (told == 'q')
            break;
        for (unsigned i = 0; i < count; i++) {
            if (told == 'v' && ports[i].opened) {
                block_verify(&ports[i].block, salt++);
                say("VERIFIED", &ports[i]);
            } else if (told == 'e' && ports[i].known) {
                eject(&ports[i]);
            }
        }
    }
    print("RESULT ports\n");
    return 0;
}
