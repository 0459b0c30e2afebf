using Vmm.Devices;
using Vmm.Devices.Virtio.Mem;
using Vmm.Memory;
using Vmm.Testing.Virtio;

namespace Vmm.State.Tests.Parts;

/// <summary>A memory device, saved with any blocks plugged: the next one answers as the first.</summary>
public sealed class MemPartTests
{
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task Saved_at_any_point_the_next_device_has_the_same_blocks_and_answers_the_same()
    {
        for (int run = 0; run < 25; run++)
        {
            Random random = new(run);
            using MemBench first = new(), second = new();
            using DeviceGuest guest = new(first.Device, TransportKind.Pci), other = new(second.Device, TransportKind.Pci);
            guest.Start();
            for (int step = random.Next(40); step > 0; step--)
            {
                Step(guest, first, random.Next());
            }

            Assert.True(first.Mem.TryHold(s_long));
            UnitBlob saved = Save(first.Mem);
            second.Mem.Restore(new StateReader(saved));
            Assert.Equal(saved.Records[0].Data.ToArray(), Save(second.Mem).Records[0].Data.ToArray());
            Assert.Equal(first.Mem.Info.Plugged, second.Mem.Info.Plugged);
            Assert.Equal([$"={first.Mem.Info.Plugged / MemBench.Block}"], second.Calls);
            Assert.Equal(Ranges(first.Mem), Ranges(second.Mem));
            first.Mem.Resume();
            other.Start();
            first.Calls.Clear();
            second.Calls.Clear();
            for (int step = 0; step < 40; step++)
            {
                int seed = random.Next();
                Assert.Equal(Step(guest, first, seed), Step(other, second, seed));
                Assert.Equal(first.Calls, second.Calls);
            }
        }
    }

    [Fact]
    public void A_state_that_is_not_of_this_region_and_a_host_without_memory_are_refused()
    {
        using MemBench bench = new();
        bench.Mem.Restore(Reader(s => s));
        Refused.With("64 blocks of 4096 bytes, this one has 64 of 2097152", () => Restore(s => s with { BlockBytes = 4096 }));
        Refused.With("65 blocks", () => Restore(s => s with { Blocks = 65 }));
        Refused.With("not of 64 blocks", () => Restore(s => s with { Plugged = new byte[7] }));
        Refused.With("not of 64 blocks", () => Restore(s => s with { Plugged = new byte[9] }));
        Refused.With("1 bytes were asked for", () => Restore(s => s with { RequestedBytes = 1 }));
        Refused.With("were asked for", () => Restore(s => s with { RequestedBytes = 65 * MemBench.Block }));
        Refused.With("were asked for", () => Restore(s => s with { RequestedBytes = ulong.MaxValue }));
        Refused.With("does not give the 6 MiB", () => Restore(s => s, full: true));
        using VirtioMem odd = new(
            new VirtioMemOptions { Start = new(MemBench.Start), Length = new ByteSize(5 * MemBench.Block) }, bench);
        Refused.With("not of 5 blocks", () => odd.Restore(Reader(s => s with { Blocks = 5, RequestedBytes = 0, Plugged = [0x20] })));
        odd.Restore(Reader(s => s with { Blocks = 5, RequestedBytes = 0, Plugged = [0x1F] }));
        Assert.Equal(10UL << 20, odd.Info.Plugged.Bytes);
    }

    [Fact]
    public void No_damaged_state_does_more_than_fail_or_make_a_device_that_answers()
    {
        Random random = new(3);
        for (int run = 0; run < 300; run++)
        {
            using MemBench bench = new();
            StateRecord good = Write(s => s).Records[0];
            try
            {
                bench.Mem.Restore(
                    new StateReader(new UnitBlob(new PartId("mem0"), [good with { Data = Damaged.Json(good.Data.Span, random) }])));
            }
            catch (StateException)
            {
                continue;
            }

            Assert.InRange(bench.Mem.Info.Plugged.Bytes, 0UL, MemBench.Blocks * MemBench.Block);
            using DeviceGuest guest = new(bench.Device, TransportKind.Pci);
            guest.Start();
            Step(guest, bench, random.Next());
        }
    }

    private static void Restore(Func<MemStateV1, MemStateV1> change, bool full = false)
    {
        using MemBench bench = new() { Full = full };
        bench.Mem.Restore(Reader(change));
    }

    private static StateReader Reader(Func<MemStateV1, MemStateV1> change) => new(Write(change));

    private static UnitBlob Write(Func<MemStateV1, MemStateV1> change)
    {
        StateWriter writer = new(new PartId("mem0"));
        writer.Write(DeviceStates.Mem, change(new MemStateV1
        {
            BlockBytes = MemBench.Block,
            Blocks = MemBench.Blocks,
            RequestedBytes = 8 * MemBench.Block,
            Plugged = [3, 0, 0, 0, 0, 0, 0, 0x80],
        }));
        return writer.ToBlob();
    }

    private static UnitBlob Save(VirtioMem device)
    {
        StateWriter writer = new(new PartId("mem0"));
        device.Save(writer);
        return writer.ToBlob();
    }

    private static List<(ulong, ulong)> Ranges(VirtioMem device)
    {
        List<(ulong, ulong)> ranges = [];
        for (ulong at = 0; device.TryFindPlugged(at, out ulong start, out ulong end); at = end)
        {
            ranges.Add((start, end));
        }

        return ranges;
    }

    /// <summary>One random request of the guest, or a wish of the host; answers what the guest saw.</summary>
    private static string Step(DeviceGuest guest, MemBench bench, int seed)
    {
        Random random = new(seed);
        if (random.Next(8) == 0)
        {
            bench.Mem.SetRequested(new ByteSize((ulong)random.Next(MemBench.Blocks + 1) * MemBench.Block));
        }

        ushort kind = (ushort)(random.Next(20) == 0 ? 2 : random.Next(3) == 0 ? 3 : random.Next(2));
        ulong address = MemBench.Start + ((ulong)random.Next(MemBench.Blocks) * MemBench.Block);
        int head = guest.Post(0, MemBench.Ask(guest, kind, address, (ushort)random.Next(1, 5)));
        (uint used, uint written) = guest.WaitUsed(0);
        Assert.Equal(((uint)head, 10u), (used, written));
        Span<byte> config = stackalloc byte[56];
        bench.Mem.ReadConfig(0, config);
        return Convert.ToHexString(guest.At(DeviceGuest.DataOf(0) + 64, 10)) + Convert.ToHexString(config);
    }
}
