using System.Buffers.Binary;
using System.Text;

namespace Vmm.Devices.Virtio.Serial;

/// <summary>
/// The conversation of the control queues about one port (virtio 1.2 section 5.3.6.2): what the driver said, and which messages it is owed.
/// Each is owed or not: however often a driver asks, nothing piles up. One thread at a time.
/// </summary>
/// <param name="port">Number of the port.</param>
/// <param name="name">Its name.</param>
internal sealed class SerialControl(uint port, string name)
{
    /// <summary>Length of struct virtio_console_control: le32 id, le16 event, le16 value.</summary>
    internal const int HeaderBytes = 8;

    private readonly byte[] _name = Encoding.UTF8.GetBytes(name);

    private enum Event : ushort
    {
        DeviceReady = 0,
        PortAdd = 1,
        PortReady = 3,
        PortOpen = 6,
        PortName = 7,
    }

    /// <summary>A program of the guest has the port open.</summary>
    internal bool GuestOpen { get; set; }

    /// <summary>PORT_ADD is owed.</summary>
    internal bool OwesAdd { get; set; }

    /// <summary>PORT_NAME is owed.</summary>
    internal bool OwesName { get; set; }

    /// <summary>PORT_OPEN is owed: the host has the port open as long as it is there.</summary>
    internal bool OwesOpen { get; set; }

    /// <summary>Something is owed.</summary>
    internal bool Owes => OwesAdd || OwesName || OwesOpen;

    /// <summary>Room for the longest message.</summary>
    internal int LongestMessage => HeaderBytes + _name.Length;

    /// <summary>Forgets everything: the driver is gone.</summary>
    internal void Reset() => GuestOpen = OwesAdd = OwesName = OwesOpen = false;

    /// <summary>A message of the driver. What is about another port, or unknown, means nothing.</summary>
    internal void Take(ReadOnlySpan<byte> message)
    {
        uint id = BinaryPrimitives.ReadUInt32LittleEndian(message);
        Event what = (Event)BinaryPrimitives.ReadUInt16LittleEndian(message[4..]);
        bool value = BinaryPrimitives.ReadUInt16LittleEndian(message[6..]) != 0;
        if (what == Event.DeviceReady)
        {
            OwesAdd = value; // 0: the driver could not set itself up
        }
        else if (id == port && what == Event.PortReady)
        {
            (OwesName, OwesOpen) = (value, value);
        }
        else if (id == port && what == Event.PortOpen)
        {
            GuestOpen = value;
        }
    }

    /// <summary>The next message that is owed; the driver has it when <see cref="Told"/> follows.</summary>
    internal int Next(Span<byte> into)
    {
        Event what = OwesAdd ? Event.PortAdd : OwesName ? Event.PortName : Event.PortOpen;
        BinaryPrimitives.WriteUInt32LittleEndian(into, port);
        BinaryPrimitives.WriteUInt16LittleEndian(into[4..], (ushort)what);
        BinaryPrimitives.WriteUInt16LittleEndian(into[6..], 1);
        if (what != Event.PortName)
        {
            return HeaderBytes;
        }

        _name.CopyTo(into[HeaderBytes..]);
        return LongestMessage;
    }

    /// <summary>The driver has what <see cref="Next"/> said.</summary>
    internal void Told()
    {
        if (OwesAdd)
        {
            OwesAdd = false;
        }
        else if (OwesName)
        {
            OwesName = false;
        }
        else
        {
            OwesOpen = false;
        }
    }
}
