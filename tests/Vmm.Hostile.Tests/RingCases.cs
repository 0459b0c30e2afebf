using Vmm.Devices.Virtio;

namespace Vmm.Hostile.Tests;

/// <summary>Ways to break a ring that mean the same to every device. Sections are of virtio 1.2.</summary>
internal static class RingCases
{
    private const int Next = DeviceGuest.Next, Write = DeviceGuest.Write, Indirect = DeviceGuest.Indirect;
    private const ulong Nowhere = 0xFFF0_0000_0000, Ram = GuestRam.Bytes;

    public static IReadOnlyList<RingCase> All { get; } = [.. Chains(), .. IndirectTables(), .. Indices(), .. Layouts(), .. Overlaps()];

    private static IEnumerable<RingCase> Chains() =>
    [
        Chain("a descriptor that is its own next", "2.7.5.3.2",
            c => c.Alter(c.Good.Length - 1, flags: Next | Flag(c), next: c.Good.Length - 1)),
        Chain("the last descriptor leads back to its like", "2.7.5.3.2", c =>
        {
            c.Guest.Put(c.Queue, 8, c.Good[^1].At, 1, Next | Flag(c), 9);
            c.Guest.Put(c.Queue, 9, c.Good[^1].At, 1, Next | Flag(c), 8);
            c.Alter(c.Good.Length - 1, flags: Next | Flag(c), next: 8);
        }),
        // What lies there is sound in itself, here and below: only the index, the depth or the length is wrong.
        Chain("next is the size of the queue", "2.7.5", c =>
        {
            c.Alter(c.Good.Length - 1, flags: Next | Flag(c), next: c.Plan.Size);
            c.Guest.Put(c.Queue, c.Plan.Size, c.Good[^1].At, c.Good[^1].Length, Flag(c));
        }),
        Chain("next is 0xFFFF", "2.7.5", c => c.Alter(c.Good.Length - 1, flags: Next | Flag(c), next: 0xFFFF)),
        Chain("a buffer outside RAM", "2.7.5", c => c.Alter(0, at: Nowhere)),
        Chain("a buffer at the end of RAM, one byte too long", "2.7.5", c => c.Alter(0, at: Ram - c.Good[0].Length + 1)),
        Chain("a buffer that begins where RAM ends", "2.7.5", c => c.Alter(0, at: Ram)),
        Chain("address and length wrap to zero", "2.7.5", c => c.Alter(0, at: ulong.MaxValue - c.Good[0].Length + 1)),
        Chain("address and length wrap into RAM", "2.7.5", c => c.Alter(0, at: ulong.MaxValue - 15, length: 4096)),
        Chain("a buffer of 4 GiB less one", "2.7.5", c => c.Alter(0, length: uint.MaxValue)),
        Chain("a buffer without bytes", "2.7.5", c => c.Alter(0, length: 0)),
        Chain("a last buffer without bytes", "2.7.5", c => c.Alter(c.Good.Length - 1, length: 0)),
        Chain("what the device reads behind what it writes", "2.7.4.2", c =>
        {
            c.Guest.Put(c.Queue, 0, c.Good[0].At, c.Good[0].Length, Next | Write, 1);
            c.Guest.Put(c.Queue, 1, c.Good[0].At, c.Good[0].Length, 0);
        }),
    ];

    private static IEnumerable<RingCase> IndirectTables() =>
    [
        Table("an indirect table in an indirect table", "2.7.5.3.1", c =>
        {
            c.Guest.Lay(DeviceGuest.TableOf(c.Queue) + 0x200, 0, c.Good);
            c.Guest.Put(DeviceGuest.TableOf(c.Queue), 0, DeviceGuest.TableOf(c.Queue) + 0x200, (uint)(16 * c.Good.Length), Indirect);
        }),
        Table("an indirect descriptor behind the first of its table", "2.7.5.3.1", c =>
        {
            c.Guest.Lay(DeviceGuest.TableOf(c.Queue) + 0x200, 0, c.Good.AsSpan(c.Good.Length - 1));
            c.Guest.Put(DeviceGuest.TableOf(c.Queue), c.Good.Length - 1, DeviceGuest.TableOf(c.Queue) + 0x200, 16, Indirect);
        }),
        Table("an indirect descriptor with a next one", "2.7.5.3.1", c => c.LayIndirect(flags: Indirect | Next)),
        Table("an indirect table of no bytes", "2.7.5.3", c => c.LayIndirect(length: 0)),
        Table("an indirect table of half a descriptor", "2.7.5.3", c => c.LayIndirect(length: 8)),
        Table("an indirect table of one descriptor and a byte", "2.7.5.3", c => c.LayIndirect(length: (16 * c.Good.Length) + 1)),
        Table("an indirect table outside RAM", "2.7.5.3", c => c.Guest.Put(c.Queue, 0, Nowhere, 32, Indirect)),
        Table("an indirect table over the end of RAM", "2.7.5.3", c => c.Guest.Put(c.Queue, 0, Ram - 16, 32, Indirect)),
        Table("an indirect table of 2 GiB", "2.7.5.3", c => c.LayIndirect(length: int.MaxValue & ~15)),
        Table("next behind the indirect table", "2.7.5.3.1", c =>
        {
            c.Guest.Put(DeviceGuest.TableOf(c.Queue), c.Good.Length - 1, c.Good[^1].At, c.Good[^1].Length, Next | Flag(c), c.Good.Length);
            c.Guest.Put(DeviceGuest.TableOf(c.Queue), c.Good.Length, c.Good[^1].At, c.Good[^1].Length, Flag(c));
        }),
        Table("an indirect chain longer than the queue", "2.7.5.3.1", c =>
        {
            for (int i = 0; i <= c.Plan.Size; i++)
            {
                c.Guest.Put(
                    DeviceGuest.TableOf(c.Queue), i, c.Good[0].At, 1, (i < c.Plan.Size ? Next : 0) | (c.Writable ? Write : 0), i + 1);
            }

            c.Guest.Put(c.Queue, 0, DeviceGuest.TableOf(c.Queue), (uint)(16 * (c.Plan.Size + 1)), Indirect);
        }),
        Table("a loop in an indirect table", "2.7.5.3.1", c =>
            c.Guest.Put(
                DeviceGuest.TableOf(c.Queue),
                c.Good.Length - 1,
                c.Good[^1].At,
                c.Good[^1].Length,
                Next | (c.Good[^1].Writable ? Write : 0),
                c.Good.Length - 1)),
        Table("a sound indirect table", "2.7.5.3", _ => { }) with { Outcome = Outcome.Served },
        // 2.7.5.3.2: the device ignores the write flag of a descriptor that refers to a table.
        Table("a sound indirect table that claims to be writable", "2.7.5.3.2", c => c.LayIndirect(flags: Indirect | Write)) with
        {
            Outcome = Outcome.Served
        },
        Table("an indirect table without the feature", "2.7.5.3.1", _ => { }) with
        {
            Before = c => c.Guest.Features &= ~VirtioFeatures.IndirectDescriptors
        },
    ];

    private static IEnumerable<RingCase> Indices() =>
    [
        Chain("a head that is the size of the queue", "2.7.6", c => c.Guest.Lay(c.Plan.Table, c.Plan.Size, c.Good), c => c.Plan.Size),
        Chain("a head of 0xFFFF", "2.7.6", c => { }, c => 0xFFFF),
        Index("the index jumps past the size of the queue", "2.7.13.1", c => (ushort)(c.Plan.Size + 1)),
        Index("the index jumps by half its range", "2.7.13.1", _ => 0x8000),
        Index("the index goes back", "2.7.13.1", _ => 0xFFFF),
        new("a kick and nothing new", "2.7.13.4", Outcome.Served)
        {
            Act = c =>
            {
                c.Lay();
                c.Guest.Kick(c.Queue);
                c.Guest.Kick(c.Queue);
                c.Go();
            },
        },
        new("a chain without a kick, then kicks of queues there are not", "4.1.4.4", Outcome.Served)
        {
            Act = c =>
            {
                c.Lay();
                c.Guest.Port.Notify((uint)c.Guest.Queues);
                c.Guest.Port.Notify(0x3FF);
                c.Go();
            },
        },
        new("the driver asks for no interrupts, and is served", "2.7.7", Outcome.Served)
        {
            Before = c => c.Guest.Features &= ~VirtioFeatures.EventIndex,
            Act = c =>
            {
                c.Lay();
                c.Guest.At(c.Plan.Avail, 1)[0] = 1;
                c.Go();
            },
        },
        new("flags of the available ring that nobody defined", "2.7.6", Outcome.Served)
        {
            Act = c =>
            {
                c.Lay();
                c.Guest.At(c.Plan.Avail, 2).Fill(0xFE);
                c.Go();
            },
        },
        new("flags of a descriptor that nobody defined", "2.7.5", Outcome.Served)
        {
            Act = c =>
            {
                c.Lay();
                c.Alter(c.Good.Length - 1, flags: 0xFFF8 | (c.Good[^1].Writable ? Write : 0));
                c.Go();
            },
        },
    ];

    private static IEnumerable<RingCase> Layouts() =>
    [
        Layout("a descriptor table outside RAM", "2.7", c => c.Plan.Table = Nowhere),
        Layout("an available ring outside RAM", "2.7", c => c.Plan.Avail = Nowhere),
        Layout("a used ring outside RAM", "2.7", c => c.Plan.Used = Nowhere),
        Layout("a descriptor table that wraps", "2.7", c => c.Plan.Table = ulong.MaxValue - 15),
        Layout("an available ring that wraps", "2.7", c => c.Plan.Avail = ulong.MaxValue - 1),
        Layout("a used ring that wraps", "2.7", c => c.Plan.Used = ulong.MaxValue - 3),
        Layout("a descriptor table over the end of RAM", "2.7", c => c.Plan.Table = Ram - (16UL * c.Plan.Size) + 16),
        Layout("an available ring over the end of RAM", "2.7", c => c.Plan.Avail = Ram - (2UL * c.Plan.Size) - 4),
        Layout("a used ring over the end of RAM", "2.7", c => c.Plan.Used = Ram - (8UL * c.Plan.Size) - 4),
        Layout("a misaligned descriptor table", "2.7", c => c.Plan.Table += 8),
        Layout("a misaligned available ring", "2.7", c => c.Plan.Avail += 1),
        Layout("a misaligned used ring", "2.7", c => c.Plan.Used += 2),
        Layout("a queue of no descriptors", "2.7", c => c.Plan.Size = 0),
        Layout("a queue of three descriptors", "2.7", c => c.Plan.Size = 3),
        Layout("a queue of twelve descriptors", "2.7", c => c.Plan.Size = 12),
        new("rings at the very end of RAM", "2.7", Outcome.Served)
        {
            Before = c =>
            {
                (c.Plan.Avail, c.Plan.Used) = (Ram - 6 - (2UL * c.Plan.Size), Ram - 0x200 - ((8UL * c.Plan.Size) + 8));
                c.Plan.Table = Ram - 0x1000 - (16UL * c.Plan.Size);
            },
            Act = Sound,
        },
        new("a queue larger than the largest, which is the largest", "4.1.4.3.2", Outcome.Served)
        {
            Before = c =>
            {
                ushort max = c.Guest.Device.QueueSizes[c.Queue];
                c.Guest.Port.Select((uint)c.Queue);
                (c.Plan.Avail, c.Plan.Used, c.Plan.Table) = (0xC0000, 0xC2000, 0xC4000);
                c.Plan.Size = (ushort)(max * 2);
            },
            Act = c =>
            {
                c.Plan.Size = c.Guest.Device.QueueSizes[c.Queue];
                Sound(c);
            },
        },
        new("an indirect chain of several in a queue of one descriptor", "2.7.5.3.1", Outcome.NeedsReset)
        {
            Before = c => c.Plan.Size = 1,
            Act = c =>
            {
                c.LayIndirect();
                c.Go();
            },
        },
        new("a queue of four descriptors", "2.7", Outcome.Served) { Before = c => c.Plan.Size = 4, Act = Sound },
        new("RAM of the rings goes away under way", "2.7", Outcome.NeedsReset)
        {
            HurtsAll = true,
            Act = c =>
            {
                c.Lay();
                c.Guest.Ram.Cut(0);
                c.Go();
            },
        },
        new("RAM of the buffers goes away under way", "2.7", Outcome.NeedsReset)
        {
            Act = c =>
            {
                c.Lay();
                c.Guest.Ram.Cut(DeviceGuest.Data);
                c.Go();
            },
        },
        new("the queue is moved while it is in use, to no avail", "4.1.4.3.2", Outcome.Served)
        {
            Act = c =>
            {
                c.Guest.Port.Select((uint)c.Queue);
                c.Guest.Port.Place(Nowhere, Nowhere, Nowhere);
                c.Guest.Port.Size = 3;
                Sound(c);
            },
        },
        new("a queue that was not enabled is kicked", "4.1.4.3.2", Outcome.Untouched)
        {
            Before = c => c.Plan.Enabled = false,
            Act = Sound,
        },
    ];

    private static IEnumerable<RingCase> Overlaps() =>
    [
        Overlap("the used ring is the available ring", c => c.Plan.Used = c.Plan.Avail),
        // What the device gives back becomes descriptors, which give it any place in RAM.
        Overlap("the used ring is the descriptor table", c => c.Plan.Used = c.Plan.Table) with { GivesAll = true },
        Overlap("the used ring lies half over the available ring", c => c.Plan.Used = c.Plan.Avail + 8),
        Overlap("all three are one", c => c.Plan.Used = c.Plan.Avail = c.Plan.Table) with { GivesAll = true },
    ];

    private static RingCase Chain(string name, string section, Action<CaseContext> abuse, Func<CaseContext, int>? head = null) =>
        new(name, section, Outcome.NeedsReset)
        {
            Act = c =>
            {
                c.Lay();
                abuse(c);
                c.Go(head?.Invoke(c) ?? 0);
            },
        };

    private static RingCase Table(string name, string section, Action<CaseContext> abuse) => new(name, section, Outcome.NeedsReset)
    {
        Act = c =>
        {
            c.LayIndirect();
            abuse(c);
            c.Go();
        },
    };

    private static RingCase Index(string name, string section, Func<CaseContext, ushort> index) => new(name, section, Outcome.NeedsReset)
    {
        Act = c =>
        {
            c.Lay();
            c.Guest.SetAvailIndex(c.Queue, index(c));
            c.Guest.Watch();
            c.Guest.Kick(c.Queue);
        },
    };

    private static RingCase Layout(string name, string section, Action<CaseContext> plan) =>
        new(name, section, Outcome.NeedsReset) { Before = plan };

    private static RingCase Overlap(string name, Action<CaseContext> plan) =>
        new(name, "2.7", Outcome.Contained) { Before = plan, Act = Sound };

    private static void Sound(CaseContext c)
    {
        c.Lay();
        c.Go();
    }

    private static int Flag(CaseContext c) => c.Good[^1].Writable ? Write : 0;
}
