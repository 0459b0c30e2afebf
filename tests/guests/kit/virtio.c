#include "virtio.h"

static struct { struct desc desc[QUEUE_MAX]; struct avail avail __attribute__((aligned(4096))); struct used used __attribute__((aligned(4096))); }
    rings[QUEUES_MAX] __attribute__((aligned(4096)));

static void barrier(void)
{
    __asm__ volatile("mfence" : : : "memory");
}

static u32 read32(volatile void *p) { return *(volatile u32 *)p; }
static void write32(volatile void *p, u32 v) { *(volatile u32 *)p = v; }
static u16 read16(volatile void *p) { return *(volatile u16 *)p; }
static void write16(volatile void *p, u16 v) { *(volatile u16 *)p = v; }

bool virtio_open(struct virtio_device *device, volatile u8 *config)
{
    u32 low = read32(config + 0x10);
    u64 high = (low & 6) == 4 ? read32(config + 0x14) : 0; /* a 64-bit BAR */
    volatile u8 *bar = (volatile u8 *)(high << 32 | (low & ~15u));
    for (u8 at = config[0x34]; at; at = config[at + 1]) {
        if (config[at] != 9 || config[at + 4] != 0)
            continue;
        volatile u8 *where = bar + read32(config + at + 8);
        if (config[at + 3] == 1)
            device->common = where;
        if (config[at + 3] == 2) {
            device->notify = where;
            device->notify_multiplier = read32(config + at + 16);
        }
        if (config[at + 3] == 4)
            device->config = where;
    }
    return device->common && device->notify && device->config;
}

/* The bus, then what is behind its bridges. */
static bool find_on_bus(struct virtio_device *device, volatile u8 *ecam, unsigned bus, u16 type)
{
    volatile u8 *first = ecam + ((u64)bus << 20);
    for (unsigned slot = 0; slot < 32; slot++) {
        volatile u8 *config = first + (slot << 15);
        if (read32(config) != ((0x1040u + type) << 16 | 0x1af4))
            continue;
        *(volatile u16 *)(config + 4) |= 6; /* memory space, bus master */
        device->function = config;
        return virtio_open(device, config);
    }
    for (unsigned slot = 0; slot < 32; slot++) {
        volatile u8 *config = first + (slot << 15);
        if (read32(config) != 0xffffffff && (config[0xe] & 0x7f) == 1 && config[0x19] > bus && find_on_bus(device, ecam, config[0x19], type))
            return true;
    }
    return false;
}

static bool find_pci(struct virtio_device *device, const struct start_info *info, u16 type)
{
    if (!info->rsdp)
        return false;
    acpi_init(info);
    const u8 *mcfg = (const u8 *)acpi_find("MCFG");
    if (!mcfg)
        return false;
    volatile u8 *ecam = (volatile u8 *)get64(mcfg + 44);
    return find_on_bus(device, ecam, 0, type);
}

static bool is_window(struct virtio_device *device, volatile u8 *window, u16 type)
{
    if (read32(window) != 0x74726976 || read32(window + 4) != 2 || read32(window + 8) != type)
        return false;
    device->mmio = window;
    device->config = window + 0x100;
    return true;
}

/* Every virtio_mmio.device=SIZE@ADDRESS:IRQ on the command line; then the windows QEMU's microvm names only in its DSDT. */
static bool find_mmio(struct virtio_device *device, u16 type)
{
    static const char key[] = "virtio_mmio.device=";
    for (const char *p = command_line(); *p; p++) {
        if (memcmp(p, key, sizeof key - 1) != 0)
            continue;
        parse_number(p + sizeof key - 1, &p);
        if (*p != '@')
            fail("command line: no @ in virtio_mmio.device");
        volatile u8 *window = (volatile u8 *)parse_number(p + 1, &p);
        if (is_window(device, window, type))
            return true;
    }
    for (u64 slot = 0; slot < 32; slot++)
        if (is_window(device, (volatile u8 *)(0xfeb00000 + slot * 0x200), type))
            return true;
    return false;
}

void virtio_find(struct virtio_device *device, const struct start_info *info, u16 type)
{
    memset(device, 0, sizeof *device);
    if (!find_pci(device, info, type) && !find_mmio(device, type))
        fail("no virtio device of type %u", type);
}

u8 virtio_status(const struct virtio_device *device)
{
    return device->mmio ? (u8)read32(device->mmio + 0x70) : device->common[20];
}

static void set_status(struct virtio_device *device, u8 status)
{
    if (device->mmio)
        write32(device->mmio + 0x70, status);
    else
        device->common[20] = status;
}

void virtio_reset(struct virtio_device *device)
{
    set_status(device, 0);
    while (virtio_status(device) != 0)
        ;
}

static u32 offered(struct virtio_device *device, u32 select)
{
    write32(device->mmio ? device->mmio + 0x14 : device->common, select);
    return read32(device->mmio ? device->mmio + 0x10 : device->common + 4);
}

static void accept(struct virtio_device *device, u32 select, u32 bits)
{
    write32(device->mmio ? device->mmio + 0x24 : device->common + 8, select);
    write32(device->mmio ? device->mmio + 0x20 : device->common + 12, bits);
}

static void put_address(struct virtio_device *device, unsigned mmio, unsigned pci, const volatile void *address)
{
    volatile u8 *at = device->mmio ? device->mmio + mmio : device->common + pci;
    write32(at, (u32)(u64)address);
    write32(at + 4, (u32)((u64)address >> 32));
}

static void set_up_queue(struct virtio_device *device, struct virtqueue *queue, u16 number)
{
    memset(queue, 0, sizeof *queue);
    memset(&rings[number], 0, sizeof rings[number]);
    queue->number = number;
    queue->desc = rings[number].desc;
    queue->avail = &rings[number].avail;
    queue->used = &rings[number].used;
    queue->event_index = device->features & VIRTIO_F_EVENT_IDX;
    u32 most;
    if (device->mmio) {
        write32(device->mmio + 0x30, number);
        most = read32(device->mmio + 0x34);
    } else {
        write16(device->common + 22, number);
        most = read16(device->common + 24);
    }
    queue->size = most < QUEUE_MAX ? (u16)most : QUEUE_MAX;
    if (device->mmio)
        write32(device->mmio + 0x38, queue->size);
    else
        write16(device->common + 24, queue->size);
    put_address(device, 0x80, 32, queue->desc);
    put_address(device, 0x90, 40, queue->avail);
    put_address(device, 0xa0, 48, queue->used);
    if (device->mmio) {
        write32(device->mmio + 0x44, 1);
        queue->doorbell = device->mmio + 0x50;
        queue->wide_doorbell = true;
    } else {
        queue->doorbell = device->notify + read16(device->common + 30) * device->notify_multiplier;
        write16(device->common + 28, 1);
    }
    queue->avail->flags = 1;    /* no interrupts: this driver polls */
}

void virtio_start(struct virtio_device *device, struct virtqueue *queue, u64 wanted)
{
    virtio_start_queues(device, queue, 1, wanted);
}

void virtio_start_queues(struct virtio_device *device, struct virtqueue *queues, u16 count, u64 wanted)
{
    virtio_reset(device);
    set_status(device, VIRTIO_ACKNOWLEDGE);
    set_status(device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    u64 bits = offered(device, 0) | (u64)offered(device, 1) << 32;
    device->features = bits & (wanted | VIRTIO_F_VERSION_1);
    accept(device, 0, (u32)device->features);
    accept(device, 1, (u32)(device->features >> 32));
    set_status(device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    if (!(virtio_status(device) & VIRTIO_FEATURES_OK))
        fail("features 0x%lx refused", device->features);
    for (u16 i = 0; i < count && i < QUEUES_MAX; i++)
        set_up_queue(device, &queues[i], i);
    set_status(device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

/* The rings are laid out for the size in use, so the fields behind them are found by it, not by the struct. */
static volatile u16 *used_event(struct virtqueue *queue) { return &queue->avail->ring[queue->size]; }
static volatile u16 *avail_event(struct virtqueue *queue) { return (volatile u16 *)&queue->used->ring[queue->size]; }

void virtio_submit(struct virtqueue *queue, u16 head)
{
    queue->avail->ring[queue->next_avail % queue->size] = head;
    queue->next_avail++;
}

static void publish(struct virtqueue *queue)
{
    if (queue->event_index)
        *used_event(queue) = (u16)(queue->last_used + 0x8000);  /* far away: no interrupt */
    __asm__ volatile("" : : : "memory");
    queue->avail->index = queue->next_avail;
    barrier();
}

void virtio_kick_always(struct virtqueue *queue)
{
    publish(queue);
    queue->kicks++;
    if (queue->wide_doorbell)
        write32(queue->doorbell, queue->number);
    else
        write16(queue->doorbell, queue->number);
}

void virtio_kick(struct virtqueue *queue)
{
    u16 old = queue->avail->index;
    publish(queue);
    bool wanted = queue->event_index
        ? (u16)(queue->next_avail - *avail_event(queue) - 1) < (u16)(queue->next_avail - old)
        : !(queue->used->flags & 1);
    if (wanted)
        virtio_kick_always(queue);
}

int virtio_take(struct virtqueue *queue, u32 *length)
{
    if (queue->used->index == queue->last_used)
        return -1;
    __asm__ volatile("" : : : "memory");
    u16 slot = queue->last_used++ % queue->size;
    if (length)
        *length = queue->used->ring[slot].length;
    return (int)queue->used->ring[slot].id;
}
