using System.Buffers.Binary;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Fs;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>A shared folder whose virtiofsd ended: what of it serves rings in our process, and answers everything with ENOTCONN.</summary>
public sealed class FsBench : DeviceBench
{
    public FsBench()
    {
        (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(new VhostUserLinkOptions { Name = "fs0", Of = "the test" });
        end.Dispose();
        Device = new VirtioFs("fs0", "tag", link, []);
    }

    public override VirtioDevice Device { get; }

    public override bool IsSaved => false;

    public override QueueRole Role(int queue) => QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        Put32(guest, at, 40);
        Put32(guest, at + 4, 3); // FUSE_GETATTR
        Put64(guest, at + 8, 0x1122_3344_5566_7788);
        Put64(guest, at + 64, ulong.MaxValue);
        return [new(at, 40, false), new(at + 64, 16, true)];
    }

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        Assert.Equal(16u, written);
        Span<byte> answer = guest.At(DeviceGuest.DataOf(queue) + 64, 16);
        Assert.Equal((16u, -107), (BinaryPrimitives.ReadUInt32LittleEndian(answer), BinaryPrimitives.ReadInt32LittleEndian(answer[4..])));
        Assert.Equal(0x1122_3344_5566_7788u, BinaryPrimitives.ReadUInt64LittleEndian(answer[8..]));
    }
}
