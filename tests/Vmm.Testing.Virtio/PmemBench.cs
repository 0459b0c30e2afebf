using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Pmem;
using Vmm.Interop;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>Persistent memory of one granule in a file of its own.</summary>
public sealed class PmemBench : DeviceBench
{
    private readonly string _path = Path.GetTempFileName();

    public PmemBench()
    {
        File.WriteAllBytes(_path, new byte[VirtioPmem.Granule]);
        Device = new VirtioPmem("pmem0", BlockFile.Open(_path, writable: true, direct: false), _path, readOnly: false);
    }

    public override VirtioDevice Device { get; }

    public override QueueRole Role(int queue) => QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        Put32(guest, at, 0); // flush, virtio 1.2 section 5.19.6.1
        Put32(guest, at + 64, 0xEEEE_EEEE);
        return [new(at, 4, false), new(at + 64, 4, true)];
    }

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        Assert.Equal(4u, written);
        Assert.Equal([0, 0, 0, 0], guest.At(DeviceGuest.DataOf(queue) + 64, 4).ToArray());
    }

    protected override void CleanUp() => File.Delete(_path);
}
