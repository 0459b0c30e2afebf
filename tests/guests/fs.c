/* virtio-fs: speaks FUSE to the shared folder. Writes file= (or what it finds there when ro=1), reads it back; with loop=1 it goes on reading until its server was lost and is back. */
#include "virtio.h"

enum { LOOKUP = 1, FORGET = 2, OPEN = 14, READ = 15, WRITE = 16, RELEASE = 18, FSYNC = 20, INIT = 26, CREATE = 35 };
enum { ENOTCONN = 107, BLOCK = 65536 };

struct in_header { u32 length, opcode; u64 unique, node; u32 uid, gid, pid, reserved; };
struct out_header { u32 length; int error; u64 unique; };
struct init_in { u32 major, minor, readahead, flags, flags2, unused[11]; };
struct init_out { u32 major, minor, readahead, flags; u16 background, congestion; u32 max_write, rest[10]; };
struct entry { u64 node, generation, valid[2]; u32 nanoseconds[2]; u64 inode, size, attributes[9]; };
struct opened { u64 handle; u32 flags, reserved; };
struct transfer { u64 handle, offset; u32 size, flags; u64 owner; u32 open_flags, reserved; };

static struct virtqueue queues[2];
static struct in_header in;
static struct out_header out;
static u8 data[BLOCK], name[64];
static u64 unique;

/* One request on the request queue: header, arguments, more bytes out, then answer, its arguments, more bytes in. 0, or an errno. */
static int call(u32 opcode, u64 node, const void *arguments, u32 length, const void *more, u32 more_length, void *answer, u32 answer_length, void *bytes, u32 bytes_length)
{
    struct { const void *at; u32 length; u16 flags; } parts[] = {
        { &in, sizeof(in), 0 }, { arguments, length, 0 }, { more, more_length, 0 },
        { &out, sizeof(out), DESC_WRITE }, { answer, answer_length, DESC_WRITE }, { bytes, bytes_length, DESC_WRITE },
    };
    struct virtqueue *queue = &queues[1];
    u16 count = 0;
    in = (struct in_header){ sizeof(in) + length + more_length, opcode, ++unique, node, 0, 0, 1, 0 };
    out = (struct out_header){ 0 };
    for (u32 i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (parts[i].length > 0) {
            if (count > 0)
                queue->desc[count - 1].next = count, queue->desc[count - 1].flags |= DESC_NEXT;
            queue->desc[count++] = (struct desc){ (u64)parts[i].at, parts[i].length, parts[i].flags, 0 };
        }
    virtio_submit(queue, 0);
    virtio_kick(queue);
    while (virtio_take(queue, NULL) < 0)
        ;
    if (out.unique != unique)
        fail("the answer to %lu is about %lu", unique, out.unique);
    return -out.error;
}

static u32 name_length(void)
{
    u32 length = 0;
    while (name[length])
        length++;
    return length + 1;
}

static int init(void)
{
    struct init_in wish = { 7, 31, BLOCK, 1 << 5 /* BIG_WRITES */, 0, { 0 } };
    static struct init_out answer;
    int error = call(INIT, 0, &wish, sizeof(wish), NULL, 0, &answer, sizeof(answer), NULL, 0);
    if (error == 0)
        print("INIT %u.%u max_write=%u\n", answer.major, answer.minor > 30, answer.max_write >= BLOCK);
    return error;
}

static int find(struct entry *entry, u64 *handle, u32 flags)
{
    u32 wish[2] = { flags, 0 };
    struct opened opened;
    int error = call(LOOKUP, 1, name, name_length(), NULL, 0, entry, sizeof(*entry), NULL, 0);
    if (error == 0)
        error = call(OPEN, entry->node, wish, sizeof(wish), NULL, 0, &opened, sizeof(opened), NULL, 0);
    *handle = opened.handle;
    return error;
}

static int create(struct entry *entry, u64 *handle)
{
    u32 wish[4] = { 2 /* O_RDWR */, 0100644, 022, 0 };
    static struct { struct entry entry; struct opened opened; } answer;
    int error = call(CREATE, 1, wish, sizeof(wish), name, name_length(), &answer, sizeof(answer), NULL, 0);
    *entry = answer.entry;
    *handle = answer.opened.handle;
    return error;
}

static u8 pattern(u64 at) { return (u8)(at * 31 + (at >> 8) * 7 + 5); }

static int read_block(u64 node, u64 handle, u64 offset, u32 *length)
{
    struct transfer wish = { handle, offset, BLOCK, 0, 0, 0, 0 };
    int error = call(READ, node, &wish, sizeof(wish), NULL, 0, NULL, 0, data, BLOCK);
    *length = out.length - sizeof(out);
    return error;
}

static void write_blocks(u64 node, u64 handle, u32 blocks)
{
    for (u64 i = 0; i < blocks; i++) {
        struct transfer wish = { handle, i * BLOCK, BLOCK, 0, 0, 0, 0 };
        u32 answer[2];
        for (u32 k = 0; k < BLOCK; k++)
            data[k] = pattern(i * BLOCK + k);
        int error = call(WRITE, node, &wish, sizeof(wish), data, BLOCK, answer, sizeof(answer), NULL, 0);
        if (error != 0 || answer[0] != BLOCK)
            fail("write: errno %u, %u bytes", error, answer[0]);
    }
    u64 sync[2] = { handle, 0 };
    int error = call(FSYNC, node, sync, sizeof(sync), NULL, 0, NULL, 0, NULL, 0);
    if (error != 0)
        fail("fsync: errno %u", error);
}

static int verify(u64 node, u64 handle, u32 blocks)
{
    for (u64 i = 0; i < blocks; i++) {
        u32 length;
        int error = read_block(node, handle, i * BLOCK, &length);
        if (error != 0)
            return error;
        for (u32 k = 0; k < length; k++)
            if (data[k] != pattern(i * BLOCK + k))
                fail("byte %lu is wrong", i * BLOCK + k);
        if (length != BLOCK)
            fail("block %lu has %u bytes", i, length);
    }
    return 0;
}

/* Forgets one look-up: a request of the high-priority queue, without an answer. */
static void forget(u64 node)
{
    static struct in_header header;
    static u64 count = 1;
    header = (struct in_header){ sizeof(header) + 8, FORGET, ++unique, node, 0, 0, 1, 0 };
    queues[0].desc[0] = (struct desc){ (u64)&header, sizeof(header), DESC_NEXT, 1 };
    queues[0].desc[1] = (struct desc){ (u64)&count, 8, 0, 0 };
    virtio_submit(&queues[0], 0);
    virtio_kick(&queues[0]);
    while (virtio_take(&queues[0], NULL) < 0)
        ;
}

static void outlive(u64 node, u64 handle, u32 blocks)
{
    struct entry entry;
    int error, lost;
    print("READING\n");
    while ((lost = verify(node, handle, blocks)) == 0)
        ;
    print("LOST errno=%u\n", lost);
    if (lost != ENOTCONN || find(&entry, &handle, 0) != ENOTCONN)
        fail("expected ENOTCONN");
    while ((error = init()) == ENOTCONN)
        ;
    if (error != 0 || find(&entry, &handle, 0) != 0 || verify(entry.node, handle, blocks) != 0)
        fail("not back: errno %u", error);
    print("BACK\n");
}

int main(struct start_info *info)
{
    struct virtio_device device;
    struct entry entry;
    u64 handle;
    args_init(info);
    virtio_find(&device, info, 26);
    virtio_start_queues(&device, queues, 2, arg_number("event", 1) ? VIRTIO_F_EVENT_IDX : 0);
    print("FS tag=%s queues=%u\n", (const char *)device.config, *(volatile u32 *)(device.config + 36));
    if (!arg_text("file", (char *)name, sizeof(name)))
        memcpy(name, "data", 5);
    u32 blocks = (u32)arg_number("blocks", 16);
    int error = init();
    if (error != 0)
        fail("FUSE_INIT: errno %u", error);
    if (arg_number("ro", 0)) {
        error = find(&entry, &handle, 0);
        if (error != 0 || verify(entry.node, handle, blocks) != 0)
            fail("reading: errno %u", error);
        memcpy(name, "new", 4);
        print("RESULT fs create=%u\n", create(&entry, &handle));
        return 0;
    }
    error = create(&entry, &handle);
    if (error != 0)
        fail("create: errno %u", error);
    write_blocks(entry.node, handle, blocks);
    error = verify(entry.node, handle, blocks);
    if (error != 0)
        fail("read: errno %u", error);
    if (arg_number("loop", 0))
        outlive(entry.node, handle, blocks);
    forget(entry.node);
    print("RESULT fs verify=ok blocks=%u status=%u\n", blocks, virtio_status(&device));
    return 0;
}
