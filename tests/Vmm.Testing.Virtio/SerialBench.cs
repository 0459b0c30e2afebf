using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Serial;
using Vmm.Interop;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>A device with a named port, whose queues are those of port 0, of control, and of the port (virtio 1.2 section 5.3.2).</summary>
public sealed class SerialBench : DeviceBench
{
    public const int ControlIn = 2, ControlOut = 3, In = 4, Out = 5;
    public const ushort DeviceReady = 0, PortReady = 3, PortOpen = 6;
    private UnixStream? _host;

    public VirtioSerial Serial { get; } = new();

    public override VirtioDevice Device => Serial;

    public override ulong Needed => 2;

    public override QueueRole Role(int queue) => queue switch
    {
        ControlIn or In => QueueRole.Prompted,
        ControlOut or Out => QueueRole.Served,
        _ => QueueRole.Ignored,
    };

    /// <summary>The control queue is how the others are prompted.</summary>
    public override bool ServesOthers(int queue) => queue == ControlOut;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        if (queue == ControlOut)
        {
            Put(guest, at, 9, DeviceReady, 9); // of a port that there is not
            BinaryPrimitives.WriteUInt16LittleEndian(guest.At(at + 4, 2), 77); // and of a kind that there is not
            return [new(at, 4, false), new(at + 4, 4, false)];
        }

        bool writable = queue is ControlIn or In;
        return [new(at, 8, writable), new(at + 8, 56, writable)];
    }

    /// <summary>Makes the device owe a PORT_ADD, or opens the port and sends a byte to it.</summary>
    public override void Prompt(DeviceGuest guest, int queue)
    {
        if (queue == ControlIn)
        {
            Tell(guest, 0, DeviceReady, 1);
            return;
        }

        if (Tell(guest, 1, PortOpen, 1))
        {
            _host = UnixStream.FromDescriptor(Serial.TryConnect([])!);
            _host.Send("?"u8);
        }
    }

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        Assert.Equal(queue switch { ControlIn => 8u, In => 1u, _ => 0u }, written);
        if (queue == In)
        {
            _host!.Dispose(); // nobody reads it
        }
    }

    /// <summary>A control message of the driver; false when the device is broken.</summary>
    public static bool Tell(DeviceGuest guest, uint port, ushort what, ushort value)
    {
        ulong at = DeviceGuest.DataOf(ControlOut) + 0x2000;
        Put(guest, at, port, what, value);
        guest.Post(ControlOut, new Piece(at, 8, false));
        guest.Wait(() => guest.UsedCount(ControlOut) > 0 || guest.Broken, "the message is not taken");
        if (guest.UsedCount(ControlOut) == 0)
        {
            return false;
        }

        guest.WaitUsed(ControlOut);
        return true;
    }

    private static void Put(DeviceGuest guest, ulong at, uint port, ushort what, ushort value)
    {
        Put32(guest, at, port);
        BinaryPrimitives.WriteUInt16LittleEndian(guest.At(at + 4, 2), what);
        BinaryPrimitives.WriteUInt16LittleEndian(guest.At(at + 6, 2), value);
    }

    protected override void CleanUp() => _host?.Dispose();
}
