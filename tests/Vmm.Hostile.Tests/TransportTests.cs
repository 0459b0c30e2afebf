using Vmm.Devices.Virtio;

namespace Vmm.Hostile.Tests;

/// <summary>
/// Drivers that break the protocol of status, features and queues (virtio 1.2 sections 2.1, 2.2, 3.1), over every device behind both
/// transports.
/// </summary>
public sealed class TransportTests
{
    private const byte Acknowledge = 1, Driver = 2, DriverOk = 4, FeaturesOk = 8, Failed = 0x80;

    private static readonly Dictionary<string, Action<DeviceBench, DeviceGuest>> s_cases = new(StringComparer.Ordinal)
    {
        // 3.1.1: nothing is served before FEATURES_OK was granted, whatever DRIVER_OK says.
        ["DRIVER_OK without FEATURES_OK serves nothing"] = (bench, guest) =>
        {
            guest.Port.Status = 0;
            guest.Port.Status = Acknowledge | Driver;
            guest.Port.Accept(guest.Features);
            guest.PlaceQueues();
            guest.Port.Status = Acknowledge | Driver | DriverOk;
            NothingIsServed(bench, guest);
            Assert.Equal(Acknowledge | Driver | DriverOk, guest.Port.Status);
        },
        ["FEATURES_OK behind DRIVER_OK serves nothing until DRIVER_OK is written again"] = (bench, guest) =>
        {
            guest.Port.Status = 0;
            guest.Port.Accept(guest.Features);
            guest.PlaceQueues();
            guest.Port.Status = Acknowledge | Driver | DriverOk;
            guest.Port.Status = Acknowledge | Driver | DriverOk | FeaturesOk;
            NothingIsServed(bench, guest);
        },
        // 2.2: a driver must not accept what was not offered.
        ["a feature that was not offered is no FEATURES_OK"] = (bench, guest) =>
        {
            guest.Features = guest.Port.Offered | (1UL << 50);
            guest.Negotiate();
            Assert.Equal(Acknowledge | Driver, guest.Port.Status);
            guest.PlaceQueues();
            guest.Port.Status = 15;
            NothingIsServed(bench, guest);
        },
        ["all 64 features are no FEATURES_OK"] = (_, guest) =>
        {
            guest.Features = ulong.MaxValue;
            guest.Negotiate();
            Assert.Equal(Acknowledge | Driver, guest.Port.Status);
        },
        // 6.1: a driver that does not accept VERSION_1 is refused.
        ["no VERSION_1 is no FEATURES_OK"] = (_, guest) =>
        {
            guest.Features &= ~VirtioFeatures.Version1;
            guest.Negotiate();
            Assert.Equal(Acknowledge | Driver, guest.Port.Status);
        },
        ["no features at all are no FEATURES_OK"] = (_, guest) =>
        {
            guest.Features = 0;
            guest.Negotiate();
            Assert.Equal(Acknowledge | Driver, guest.Port.Status);
        },
        ["a refused driver may think again without a reset"] = (bench, guest) =>
        {
            guest.Port.Status = 0;
            guest.Port.Status = 3;
            guest.Port.Accept(ulong.MaxValue);
            guest.Port.Status = 11;
            Assert.Equal(3, guest.Port.Status);
            guest.Port.Accept(guest.Features);
            guest.Port.Status = 11;
            Assert.Equal(11, guest.Port.Status);
            guest.PlaceQueues();
            guest.Port.Status = 15;
            bench.ServeAll(guest);
        },
        // 3.1.1: features may not change after FEATURES_OK.
        ["features after FEATURES_OK change nothing"] = (bench, guest) =>
        {
            guest.Negotiate();
            guest.Port.Accept(0);
            guest.PlaceQueues();
            guest.Port.Status = 15;
            bench.ServeAll(guest);
        },
        ["features while queues are served change nothing"] = (bench, guest) =>
        {
            guest.Start();
            guest.Port.Accept(ulong.MaxValue);
            bench.ServeAll(guest);
            Assert.Equal(15, guest.Port.Status);
        },
        // 2.1.1: the driver must not clear a bit; only zero takes bits away.
        ["bits are not taken away but by zero"] = (bench, guest) =>
        {
            guest.Start();
            guest.Port.Status = Acknowledge;
            Assert.Equal(15, guest.Port.Status);
            bench.ServeAll(guest);
        },
        ["DRIVER_OK twice is once"] = (bench, guest) =>
        {
            guest.Start();
            bench.ServeAll(guest);
            guest.Port.Status = 15;
            guest.Port.Status = DriverOk;
            bench.ServeAll(guest);
        },
        ["DRIVER_OK and all others at once, without a step before"] = (bench, guest) =>
        {
            guest.Port.Status = 0;
            guest.Port.Accept(guest.Features);
            guest.PlaceQueues();
            guest.Port.Status = 15;
            Assert.Equal(15, guest.Port.Status);
            bench.ServeAll(guest);
        },
        // 2.1.2: DEVICE_NEEDS_RESET is the device's bit.
        ["the driver cannot set NEEDS_RESET"] = (bench, guest) =>
        {
            guest.Start();
            guest.Port.Status = 15 | DeviceGuest.NeedsReset;
            Assert.Equal(15, guest.Port.Status);
            bench.ServeAll(guest);
        },
        ["the driver cannot take NEEDS_RESET back"] = (bench, guest) =>
        {
            Break(bench, guest);
            guest.Port.Status = 15;
            Assert.Equal(15 | DeviceGuest.NeedsReset, guest.Port.Status);
        },
        ["DRIVER_OK does not revive a broken device"] = (bench, guest) =>
        {
            Break(bench, guest);
            guest.Port.Status = DriverOk;
            guest.Port.Status = 15;
            NothingIsServed(bench, guest, broken: true);
        },
        ["FAILED is kept, and the reset forgets it"] = (_, guest) =>
        {
            guest.Negotiate();
            guest.Port.Status = 11 | Failed;
            Assert.Equal(11 | Failed, guest.Port.Status);
        },
        ["status bits that nobody defined are kept and mean nothing"] = (bench, guest) =>
        {
            guest.Start();
            guest.Port.Status = 15 | 0x30;
            Assert.Equal(15 | 0x30, guest.Port.Status);
            bench.ServeAll(guest);
        },
        // 2.1: a reset is over when the status reads as zero.
        ["a reset of a device that was never started"] = (_, guest) =>
        {
            for (int i = 0; i < 8; i++)
            {
                guest.Port.Status = 0;
                Assert.Equal(0, guest.Port.Status);
            }
        },
        ["a reset forgets every queue"] = (_, guest) =>
        {
            guest.Start();
            guest.Port.Status = 0;
            for (int queue = 0; queue < guest.Queues; queue++)
            {
                guest.Port.Select((uint)queue);
                Assert.False(guest.Port.Enabled);
                Assert.Equal(guest.Device.QueueSizes[queue], guest.Port.Size);
            }
        },
        ["after a reset nothing of the guest is touched"] = (bench, guest) =>
        {
            guest.Start();
            PostEverywhere(bench, guest, 4);
            guest.Port.Status = 0;
            guest.Watch();
            for (int queue = 0; queue < guest.Queues; queue++)
            {
                guest.Offer(queue, 0);
            }

            guest.Watch();
            KickAll(guest);
            Thread.Sleep(5);
            Assert.True(Unchanged(guest), "a device that was reset wrote to the guest");
        },
        ["resets among requests, many times"] = (bench, guest) =>
        {
            for (int round = 0; round < 12; round++)
            {
                guest.Start();
                PostEverywhere(bench, guest, round);
                guest.Port.Status = 0;
                Assert.Equal(0, guest.Port.Status);
            }
        },
        ["starts without a reset between them"] = (bench, guest) =>
        {
            guest.Start();
            bench.ServeAll(guest);
            guest.Port.Accept(guest.Features);
            guest.Port.Status = 15;
            for (int queue = 0; queue < guest.Queues; queue++)
            {
                guest.PlaceQueue(queue);
            }

            bench.ServeAll(guest);
        },
        // 2.1.2, 3.1.1: no buffers are consumed before DRIVER_OK; those that are there by then are not lost.
        ["kicks before DRIVER_OK serve nothing, and DRIVER_OK serves what is there"] = (bench, guest) =>
        {
            guest.Negotiate();
            guest.PlaceQueues();
            int queue = FirstServed(bench, guest);
            int head = guest.Post(queue, bench.Good(guest, queue));
            KickAll(guest);
            Thread.Sleep(2);
            Assert.Equal(0, guest.UsedCount(queue));
            guest.Port.Status = 15;
            bench.Answered(guest, queue, head);
        },
        ["no queue is enabled: the device lives and serves nothing"] = (bench, guest) =>
        {
            foreach (RingPlan plan in guest.Plans)
            {
                plan.Enabled = false;
            }

            guest.Start();
            Assert.Equal(15, guest.Port.Status);
            NothingIsServed(bench, guest);
        },
        ["a queue that is enabled after DRIVER_OK is not served"] = (bench, guest) =>
        {
            int late = FirstServed(bench, guest);
            guest.Plans[late].Enabled = false;
            guest.Start();
            guest.PlaceQueue(late);
            guest.Post(late, bench.Good(guest, late));
            Thread.Sleep(2);
            Assert.Equal(0, guest.UsedCount(late));
            Assert.Equal(15, guest.Port.Status);
        },
        ["registers of queues that do not exist"] = (bench, guest) =>
        {
            guest.Negotiate();
            foreach (uint queue in (uint[])[(uint)guest.Queues, 0x7FFF, 0xFFFF])
            {
                guest.Port.Select(queue);
                Assert.Equal(0, guest.Port.Size);
                guest.Port.Size = 8;
                guest.Port.Place(0, 0, 0);
                guest.Port.Enabled = true;
                Assert.False(guest.Port.Enabled);
                Assert.Equal(0, guest.Port.Size);
            }

            guest.PlaceQueues();
            guest.Port.Status = 15;
            bench.ServeAll(guest);
        },
        ["kicks of queues that do not exist"] = (bench, guest) =>
        {
            guest.Start();
            foreach (uint queue in (uint[])[(uint)guest.Queues, 0xFF, 0x3FE])
            {
                guest.Port.Notify(queue);
            }

            bench.ServeAll(guest);
        },
        ["ten thousand kicks of nothing"] = (bench, guest) =>
        {
            guest.Start();
            for (int i = 0; i < 10_000; i++)
            {
                guest.Port.Notify((uint)(i % guest.Queues));
            }

            bench.ServeAll(guest);
        },
        ["the last descriptor, many laps of the ring"] = (bench, guest) =>
        {
            guest.Start();
            int queue = FirstServed(bench, guest);
            for (int i = 0; i < 300; i++)
            {
                bench.Serve(guest, queue);
            }
        },
        ["one queue broken stops the device, and no queue is served"] = (bench, guest) =>
        {
            Break(bench, guest);
            NothingIsServed(bench, guest, broken: true);
        },
        // 4.2.2.2 and 4.1.4.3.2: what is not there reads as zero, and what is read-only stays.
        ["the configuration space ends where it ends"] = (_, guest) =>
        {
            byte[] beyond = new byte[8];
            foreach (int offset in (int[])[guest.Device.ConfigLength, guest.Device.ConfigLength + 1, 0xF8])
            {
                beyond.AsSpan().Fill(0x55);
                guest.Port.ReadConfig(offset, beyond);
                Assert.Equal(new byte[8], beyond);
                guest.Port.WriteConfig(offset, [1, 2, 3, 4, 5, 6, 7, 8]);
            }
        },
        ["a read over the end of the configuration space is zero there"] = (_, guest) =>
        {
            int length = guest.Device.ConfigLength;
            if (length >= 4)
            {
                byte[] last = new byte[4], over = new byte[8];
                guest.Port.ReadConfig(length - 4, last);
                guest.Port.ReadConfig(length - 4, over);
                Assert.Equal([.. last, 0, 0, 0, 0], over);
            }
        },
    };

    public static TheoryData<string, TransportKind, string> Cases
    {
        get
        {
            TheoryData<string, TransportKind, string> data = [];
            foreach (string device in DeviceRegistry.Names)
            {
                foreach (string name in s_cases.Keys)
                {
                    data.Add(device, TransportKind.Pci, name);
                    data.Add(device, TransportKind.Mmio, name);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Protocol(string device, TransportKind transport, string abuse)
    {
        using DeviceBench bench = DeviceRegistry.Create(device);
        using DeviceGuest guest = new(bench.Device, transport);
        s_cases[abuse](bench, guest);
        bench.Heal(guest);
    }

    private static int FirstServed(DeviceBench bench, DeviceGuest guest) =>
        Enumerable.Range(0, guest.Queues).First(q => bench.Role(q) == QueueRole.Served);

    private static void KickAll(DeviceGuest guest)
    {
        for (int queue = 0; queue < guest.Queues; queue++)
        {
            guest.Kick(queue);
        }
    }

    private static void PostEverywhere(DeviceBench bench, DeviceGuest guest, int requests)
    {
        for (int queue = 0; queue < guest.Queues; queue++)
        {
            for (int i = 0; i < requests; i++)
            {
                guest.Post(queue, bench.Good(guest, queue));
            }
        }
    }

    private static bool Unchanged(DeviceGuest guest)
    {
        foreach (RingPlan plan in guest.Plans)
        {
            plan.Enabled = false; // also the used rings
        }

        guest.AssertContained();
        return true;
    }

    /// <summary>A looped chain on a queue that is served.</summary>
    private static void Break(DeviceBench bench, DeviceGuest guest)
    {
        guest.Start();
        int queue = FirstServed(bench, guest);
        guest.Put(queue, 0, DeviceGuest.Data, 8, DeviceGuest.Next, 0);
        guest.Offer(queue, 0);
        guest.Kick(queue);
        guest.WaitNeedsReset();
        Thread.Sleep(10); // a device of several threads: the others finish the round they are in
    }

    private static void NothingIsServed(DeviceBench bench, DeviceGuest guest, bool broken = false)
    {
        PostEverywhere(bench, guest, 1);
        guest.Watch();
        KickAll(guest);
        Thread.Sleep(3);
        for (int queue = 0; queue < guest.Queues; queue++)
        {
            Assert.Equal(0, guest.UsedCount(queue));
        }

        Assert.Equal(broken, guest.Broken);
        Assert.True(Unchanged(guest));
    }
}
