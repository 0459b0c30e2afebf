using System.Buffers.Binary;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// The control queue (virtio 1.2 section 5.1.6.5): number of queue pairs, offloads, receive modes. On the thread of the first pair.
/// </summary>
internal sealed class NetControl : IChainHandler
{
    private const byte ClassReceive = 0, ClassMac = 1, ClassMultiQueue = 4, ClassGuestOffloads = 5;
    private const byte TableSet = 0;
    private const byte Ok = 0, Error = 1;
    private const uint MostCommand = 1 << 20; // two tables of 87,000 addresses

    private readonly VirtioNet _device;
    private readonly ulong _features;
    private readonly RingPump _pump;

    internal NetControl(VirtioNet device, VirtioActivation activation, int queue, Action wake)
    {
        _device = device;
        _features = activation.Features;
        _pump = new RingPump(activation, queue, this, MostCommand, mostWritable: 1) { Wake = wake };
    }

    /// <inheritdoc/>
    public bool WantsChain => true;

    /// <summary>Carries out what is in the ring. False when the driver broke it.</summary>
    public bool Serve() => _pump.Serve();

    /// <summary>Before sleeping; true when commands arrived meanwhile.</summary>
    public bool PrepareSleep() => _pump.PrepareSleep();

    /// <summary>A command that was not carried out counts as not taken.</summary>
    public void GiveBack() => _pump.GiveBack();

    /// <inheritdoc/>
    public ChainResult Handle(RequestChain chain, out uint written)
    {
        written = 1;
        Span<byte> command = stackalloc byte[16]; // only tables of addresses are longer
        int length = chain.Read(0, command);
        if (length < 2 || chain.WritableBytes == 0)
        {
            return ChainResult.Malformed;
        }

        bool done = command[0] == ClassMac ? command[1] == TableSet && SetTables(chain) : Do(command[0], command[1], command[2..length]);
        chain.Write(0, [done ? Ok : Error]);
        return ChainResult.Done;
    }

    private bool Do(byte group, byte command, ReadOnlySpan<byte> data) => group switch
    {
        // Promiscuous and all-multicast; the others are of CTRL_RX_EXTRA, which is not offered (5.1.6.5.1). Filters are best effort: a tap
        // has one reader,
        // and what it sends is meant for the guest. Either mode is granted, neither filters.
        ClassReceive => Accepted(NetFeatures.ControlReceive) && command <= 1 && data.Length >= 1 && data[0] <= 1,
        ClassMultiQueue => command == 0 && data.Length >= 2 && Accepted(NetFeatures.MultiQueue)
            && _device.SetActivePairs(BinaryPrimitives.ReadUInt16LittleEndian(data)),
        ClassGuestOffloads => command == 0 && data.Length >= 8 && SetOffloads(BinaryPrimitives.ReadUInt64LittleEndian(data)),
        _ => false,
    };

    private bool Accepted(ulong feature) => (_features & feature) != 0;

    /// <summary>
    /// VIRTIO_NET_CTRL_MAC_TABLE_SET (5.1.6.5.2): a table of unicast and one of multicast addresses, each behind its number of entries.
    /// Well-formed ones are granted, as receive modes are, and nothing is filtered.
    /// </summary>
    private bool SetTables(RequestChain chain) =>
        Accepted(NetFeatures.ControlReceive)
        && TryReadCount(chain, 2, out ulong unicast) && TryReadCount(chain, 6 + unicast, out ulong multicast)
        && chain.ReadableBytes == 10 + unicast + multicast;

    /// <summary>Bytes of a table whose number of entries lies at an offset of the command, in any pieces.</summary>
    private static bool TryReadCount(RequestChain chain, ulong offset, out ulong bytes)
    {
        Span<byte> count = stackalloc byte[4];
        bool found = chain.Read(offset, count) == count.Length;
        bytes = found ? 6UL * BinaryPrimitives.ReadUInt32LittleEndian(count) : 0;
        return found;
    }

    private bool SetOffloads(ulong wanted) =>
        Accepted(NetFeatures.ControlGuestOffloads) && (wanted & ~(_features & NetFeatures.GuestOffloads)) == 0
        && _device.Backend.SetOffloads(NetFeatures.Offloads(wanted));
}
