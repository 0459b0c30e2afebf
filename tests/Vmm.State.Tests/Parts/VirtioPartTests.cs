using Vmm.Devices;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Testing.Virtio;

namespace Vmm.State.Tests.Parts;

/// <summary>
/// Every virtio device, saved while requests are in its queues: no request is lost or answered twice, here or in a fresh device.
/// </summary>
public sealed class VirtioPartTests
{
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(30);

    public static TheoryData<string, TransportKind> Cases
    {
        get
        {
            TheoryData<string, TransportKind> cases = [];
            foreach (string name in DeviceRegistry.Names.Where(IsSaved))
            {
                cases.Add(name, TransportKind.Pci);
                cases.Add(name, TransportKind.Mmio);
            }

            return cases;
        }
    }

    private static bool IsSaved(string name)
    {
        using DeviceBench bench = DeviceRegistry.Create(name);
        return bench.IsSaved;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Saved_amid_requests_and_restored_into_a_fresh_device_every_request_is_answered_once(string name, TransportKind kind)
    {
        using DeviceBench first = DeviceRegistry.Create(name), second = DeviceRegistry.Create(name);
        using DeviceGuest guest = new(first.Device, kind);
        guest.Start();
        first.ServeAll(guest);
        List<(int Queue, int Head)> open = PostOne(first, guest);
        UnitRegistry units = Units(guest.Port, atRest: false);
        await units.QuiesceAsync(Quiesce.Drain, s_long);
        byte[] saved = Save(units);
        Assert.Equal(saved, Save(units)); // saving changes nothing

        // What was answered before the save went to the first device's back end, the rest comes to the second one's.
        foreach ((int queue, int head) in open.Where(o => guest.UsedCount(o.Queue) > 0).ToArray())
        {
            first.Answered(guest, queue, head);
            open.Remove((queue, head));
        }

        DriverPort port = DriverPort.Create(kind, second.Device, guest.Ram);
        guest.MoveTo(second.Device, port);
        UnitRegistry fresh = Units(port, atRest: true);
        fresh.Restore(StateDocumentReader.Read(saved).Units);
        Assert.Equal(saved, Save(fresh));
        fresh.Resume();
        foreach ((int queue, int head) in open)
        {
            second.Answered(guest, queue, head);
        }

        second.ServeAll(guest);
        Assert.All(Enumerable.Range(0, guest.Queues), queue => Assert.Equal(0, guest.UsedCount(queue)));
        second.Heal(guest);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Held_saved_and_resumed_a_device_goes_on_many_times(string name, TransportKind kind)
    {
        using DeviceBench bench = DeviceRegistry.Create(name);
        using DeviceGuest guest = new(bench.Device, kind);
        guest.Start();
        UnitRegistry units = Units(guest.Port, atRest: false);
        for (int i = 0; i < 20; i++)
        {
            List<(int Queue, int Head)> open = PostOne(bench, guest);
            await units.QuiesceAsync(Quiesce.Hold, s_long);
            Save(units);
            guest.Watch();
            await Task.Delay(1);
            guest.AssertContained(); // at rest it touches nothing
            units.Resume();
            foreach ((int queue, int head) in open)
            {
                bench.Answered(guest, queue, head);
            }
        }
    }

    [Fact]
    public async Task A_guest_with_a_socket_device_is_told_once_that_its_connections_are_gone()
    {
        const int events = 2;
        using DeviceBench first = DeviceRegistry.Create("vsock"), second = DeviceRegistry.Create("vsock");
        using DeviceGuest guest = new(first.Device, TransportKind.Pci);
        guest.Start();
        guest.At(DeviceGuest.DataOf(events), 8).Fill(0xEE);
        Piece[] room = [new Piece(DeviceGuest.DataOf(events), 8, true)];
        int head = guest.Post(events, room);
        guest.Post(events, room);
        UnitRegistry units = Units(guest.Port, atRest: false);
        await units.QuiesceAsync(Quiesce.Drain, s_long);
        byte[] saved = Save(units);
        Assert.Equal(0, guest.UsedCount(events));
        DriverPort port = DriverPort.Create(TransportKind.Pci, second.Device, guest.Ram);
        guest.MoveTo(second.Device, port);
        UnitRegistry fresh = Units(port, atRest: true);
        fresh.Restore(StateDocumentReader.Read(saved).Units);
        fresh.Resume();
        Assert.Equal(((uint)head, 4u), guest.WaitUsed(events));
        // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
        Assert.Equal([0, 0, 0, 0, 0xEE, 0xEE, 0xEE, 0xEE], guest.At(DeviceGuest.DataOf(events), 8).ToArray());
        second.ServeAll(guest);
        Assert.Equal(0, guest.UsedCount(events));
    }

    [Fact]
    public void A_disk_of_another_size_and_more_pairs_than_there_are_is_refused()
    {
        using DeviceBench disk = DeviceRegistry.Create("blk"), net = DeviceRegistry.Create("net");
        StateWriter writer = new(new PartId("disk0"));
        writer.Write(DeviceStates.Blk, new() { Sectors = 1, Writeback = true });
        writer.Write(DeviceStates.Net, new() { ActivePairs = 99 });
        Refused.With("the disk had 1 sectors", () => disk.Device.Restore(new StateReader(writer.ToBlob())));
        Refused.With("99 pairs", () => net.Device.Restore(new StateReader(writer.ToBlob())));
    }

    private static List<(int Queue, int Head)> PostOne(DeviceBench bench, DeviceGuest guest)
    {
        List<(int Queue, int Head)> open = [];
        for (int queue = 0; queue < guest.Queues; queue++)
        {
            if (bench.Role(queue) != QueueRole.Ignored && !bench.ServesOthers(queue))
            {
                open.Add((queue, guest.Post(queue, bench.Good(guest, queue))));
            }
        }

        return open;
    }

    private static UnitRegistry Units(DriverPort port, bool atRest)
    {
        UnitRegistry units = new();
        PartId device = new("device");
        if (port is PciPort pci)
        {
            PartId bus = new("pci");
            units.Register(new RegisterPart<PciStateV1>(bus, DeviceStates.Pci, pci.Bridge.Capture, pci.Bridge.Restore), atRest);
            units.Register(new VirtioPart(device, port.Transport, ((VirtioPciFunction)pci.Function).Msix, bus), atRest);
        }
        else
        {
            units.Register(new VirtioPart(device, port.Transport, vectors: null), atRest);
        }

        return units;
    }

    private static byte[] Save(UnitRegistry units) => StateDocumentWriter.Write(new StateDocument("test", Documents.About, units.Save()));
}
