/* A polling virtio driver (virtio 1.2): modern PCI found through ECAM, or MMIO version 2 from the command line; split virtqueues. */
#pragma once
#include "acpi.h"

enum { VIRTIO_ACKNOWLEDGE = 1, VIRTIO_DRIVER = 2, VIRTIO_DRIVER_OK = 4, VIRTIO_FEATURES_OK = 8, VIRTIO_NEEDS_RESET = 0x40 };
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
#define VIRTIO_F_INDIRECT (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define QUEUE_MAX 256
#define QUEUES_MAX 4

struct virtio_device {
    volatile u8 *mmio;                                  /* NULL: PCI */
    volatile u8 *function;                              /* PCI: its configuration space */
    volatile u8 *common, *notify, *config;
    u32 notify_multiplier;
    u64 features;                                       /* accepted */
};

struct desc { u64 address; u32 length; u16 flags, next; };
struct avail { u16 flags, index, ring[QUEUE_MAX + 1]; };
struct used { u16 flags, index; struct { u32 id, length; } ring[QUEUE_MAX]; u16 avail_event; };

struct virtqueue {
    struct desc *desc;
    volatile struct avail *avail;
    volatile struct used *used;
    u16 size, next_avail, last_used, number;
    volatile void *doorbell;
    bool event_index, wide_doorbell;
    u64 kicks;
};

/* The index-th device of a type (2: block); ends the guest when there is none. */
void virtio_find(struct virtio_device *device, const struct start_info *info, u16 type);
/* The device of a PCI function whose BAR 0 has its address and is decoded; false when it is no virtio device. */
bool virtio_open(struct virtio_device *device, volatile u8 *config);
u8 virtio_status(const struct virtio_device *device);
/* Reset, negotiate (offered & wanted, VERSION_1 always), one queue of at most QUEUE_MAX, DRIVER_OK. */
void virtio_start(struct virtio_device *device, struct virtqueue *queue, u64 wanted);
/* The same with the first count queues, at most QUEUES_MAX. */
void virtio_start_queues(struct virtio_device *device, struct virtqueue *queues, u16 count, u64 wanted);
void virtio_reset(struct virtio_device *device);
/* Makes a chain available by its head; virtio_kick tells the device if it wants to know. */
void virtio_submit(struct virtqueue *queue, u16 head);
void virtio_kick(struct virtqueue *queue);
void virtio_kick_always(struct virtqueue *queue);
/* Takes one used entry: its head, or -1. */
int virtio_take(struct virtqueue *queue, u32 *length);
