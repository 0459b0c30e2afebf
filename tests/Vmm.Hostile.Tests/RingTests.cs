using System.Diagnostics;

namespace Vmm.Hostile.Tests;

/// <summary>Every way to break a ring (<see cref="RingCases"/>), over every device and each of its queues.</summary>
public abstract class RingTests(TransportKind transport)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public static TheoryData<string, string> Cases
    {
        get
        {
            TheoryData<string, string> data = [];
            foreach (string device in DeviceRegistry.Names)
            {
                foreach (RingCase ring in RingCases.All)
                {
                    data.Add(device, ring.Name);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Ring(string device, string abuse)
    {
        RingCase ring = RingCases.All.Single(r => r.Name == abuse);
        using DeviceBench bench = DeviceRegistry.Create(device);
        using DeviceGuest guest = new(bench.Device, transport);
        Assert.All(Enumerable.Range(0, guest.Queues), queue => Run(ring, bench, guest, queue));
    }

    private static void Run(RingCase ring, DeviceBench bench, DeviceGuest guest, int queue)
    {
        Stopwatch watch = Stopwatch.StartNew();
        CaseContext context = new(bench, guest, queue);
        ring.Before?.Invoke(context);
        guest.Start();
        if (ring.Act is null)
        {
            Refused(context);
        }
        else
        {
            ring.Act(context);
            Judge(context, ring);
        }

        bench.Heal(guest);
        Assert.True(watch.Elapsed < s_patience, $"took {watch.Elapsed}");
    }

    /// <summary>The layout cannot be: DRIVER_OK is answered by NEEDS_RESET, and no queue is served.</summary>
    private static void Refused(CaseContext c)
    {
        Assert.Contains($"queue {c.Queue}", c.Guest.WaitNeedsReset(), StringComparison.Ordinal);
        c.Guest.Watch();
        for (int queue = 0; queue < c.Guest.Queues; queue++)
        {
            c.Guest.Kick(queue);
        }

        c.Guest.AssertContained();
    }

    private static void Judge(CaseContext c, RingCase ring)
    {
        QueueRole role = c.Bench.Role(c.Queue);
        Outcome outcome = role != QueueRole.Ignored ? ring.Outcome
            : ring.HurtsAll || ring.Outcome == Outcome.Contained ? Outcome.Contained
            : Outcome.Untouched;

        switch (outcome)
        {
            case Outcome.NeedsReset:
                PromptIf(c, role);
                Assert.NotEmpty(c.Guest.WaitNeedsReset());
                Assert.Equal(0, c.Guest.UsedCount(c.Queue));
                break;
            case Outcome.Served:
                c.Bench.Answered(c.Guest, c.Queue, 0);
                Assert.False(c.Guest.Broken, c.Guest.Port.Transport.LastFault);
                Assert.Equal(0, c.Guest.UsedCount(c.Queue));
                break;
            case Outcome.Untouched:
                ServeAnother(c);
                Assert.False(c.Guest.Broken, c.Guest.Port.Transport.LastFault);
                Assert.Equal(0, c.Guest.UsedIndex(c.Queue));
                return;
            default:
                PromptIf(c, role);
                Thread.Sleep(5); // whatever it does, it does now
                break;
        }

        if (ring.GivesAll)
        {
            return; // the guard pages beside RAM remain
        }

        c.Guest.AssertContained([.. c.Good, BalloonBench.Given(c.Queue), .. Prompts(c)]);
    }

    private static void PromptIf(CaseContext c, QueueRole role)
    {
        if (role == QueueRole.Prompted)
        {
            c.Bench.Prompt(c.Guest, c.Queue);
        }
    }

    /// <summary>A queue of the same device that works shows that the device had its turn.</summary>
    private static void ServeAnother(CaseContext c)
    {
        if (c.Guest.Ram.Memory.Regions.Count == 0 || c.Guest.Ram.Memory.Total < GuestRam.Bytes)
        {
            c.Guest.Ram.Cut(null);
        }

        for (int queue = 0; queue < c.Guest.Queues; queue++)
        {
            if (queue != c.Queue && c.Bench.Role(queue) == QueueRole.Served)
            {
                c.Bench.Serve(c.Guest, queue);
                return;
            }
        }

        Thread.Sleep(10); // its only queue: nothing happens there
    }

    /// <summary>What the prompt of a queue writes in the driver's name, on its other queues.</summary>
    private static IEnumerable<Piece> Prompts(CaseContext c)
    {
        for (int queue = 0; queue < c.Guest.Queues; queue++)
        {
            if (queue != c.Queue)
            {
                yield return new(DeviceGuest.DataOf(queue), 0x8000, true);
                yield return new(c.Guest.Plans[queue].Table, 0x2000, true);
            }
        }
    }
}

public sealed class PciRingTests() : RingTests(TransportKind.Pci);

public sealed class MmioRingTests() : RingTests(TransportKind.Mmio);
