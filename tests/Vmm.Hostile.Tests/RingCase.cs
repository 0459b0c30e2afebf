namespace Vmm.Hostile.Tests;

/// <summary>What a device does about a broken rule.</summary>
internal enum Outcome
{
    /// <summary>DEVICE_NEEDS_RESET with a configuration interrupt (virtio 1.2 section 2.1.2), and nothing more is taken.</summary>
    NeedsReset,

    /// <summary>The request is answered as any other.</summary>
    Served,

    /// <summary>Nothing of the queue is touched, and the device goes on.</summary>
    Untouched,

    /// <summary>
    /// The driver harms itself: what it reads back is its own fault. Nothing that it did not give is touched, and a reset heals.
    /// </summary>
    Contained,
}

/// <summary>One case at work: a device behind a transport, and the queue that is abused.</summary>
internal sealed class CaseContext(DeviceBench bench, DeviceGuest guest, int queue)
{
    public DeviceBench Bench => bench;

    public DeviceGuest Guest => guest;

    public int Queue => queue;

    public RingPlan Plan => guest.Plans[queue];

    /// <summary>The sound request of the queue, which the case breaks in one place.</summary>
    public Piece[] Good { get; private set; } = [];

    public bool Writable => Good[0].Writable;

    /// <summary>Lays a sound request from descriptor 0 on.</summary>
    public Piece[] Lay()
    {
        Good = bench.Good(guest, queue);
        guest.Lay(Plan.Table, 0, Good);
        return Good;
    }

    /// <summary>Lays a sound request into an indirect table, and the descriptor 0 that points at it.</summary>
    public void LayIndirect(int? length = null, int flags = DeviceGuest.Indirect)
    {
        Good = bench.Good(guest, queue);
        guest.Lay(DeviceGuest.TableOf(queue), 0, Good);
        guest.Put(queue, 0, DeviceGuest.TableOf(queue), (uint)(length ?? (16 * Good.Length)), flags, 1);
    }

    /// <summary>Writes one descriptor of the laid request anew.</summary>
    public void Alter(int index, ulong? at = null, uint? length = null, int? flags = null, int? next = null)
    {
        bool last = index + 1 == Good.Length;
        guest.Put(queue, index, at ?? Good[index].At, length ?? Good[index].Length,
            flags ?? ((Good[index].Writable ? DeviceGuest.Write : 0) | (last ? 0 : DeviceGuest.Next)), next ?? index + 1);
    }

    public void Go(int head = 0)
    {
        guest.Offer(queue, head);
        guest.Watch();
        guest.Kick(queue);
    }
}

/// <summary>
/// One way to break a ring: what the driver plans wrongly before DRIVER_OK, what it does wrongly afterwards, and what has to come of it.
/// </summary>
internal sealed record RingCase(string Name, string Section, Outcome Outcome)
{
    /// <summary>Changes the layout before the device hears of it.</summary>
    public Action<CaseContext>? Before { get; init; }

    /// <summary>The abuse itself; null: the abuse is the layout, which the device refuses at DRIVER_OK.</summary>
    public Action<CaseContext>? Act { get; init; }

    /// <summary>It takes from the other queues what they need, too.</summary>
    public bool HurtsAll { get; init; }

    /// <summary>The driver gives all of RAM, without meaning to.</summary>
    public bool GivesAll { get; init; }
}
