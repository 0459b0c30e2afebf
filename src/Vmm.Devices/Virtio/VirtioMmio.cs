using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>A virtio device behind a memory-mapped register window of 512 bytes, version 2 (virtio 1.2 section 4.2).</summary>
public sealed class VirtioMmio : VirtioTransport, IBusDevice
{
    /// <summary>Size of the window in bytes.</summary>
    public const ulong WindowLength = 0x200;

    /// <summary>Offset of QueueNotify, for doorbells: writes of the queue number.</summary>
    public const ulong NotifyOffset = 0x50;

    private readonly IInterruptLine _line;
    private int _isr;

    /// <summary>Builds the window; <paramref name="line"/> is pulsed for every interrupt.</summary>
    public VirtioMmio(VirtioDevice device, GuestMemory memory, IInterruptLine line)
        : base(device, memory, mayTransfer: true) => _line = line;

    /// <summary>Doorbell of a queue, for binding.</summary>
    public EventFd QueueDoorbell(int queue) => Doorbell(queue);

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        lock (Gate)
        {
            if (offset >= 0x100)
            {
                ReadDeviceConfig((int)(offset - 0x100), data);
                return;
            }

            if (data.Length == 4)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(data, ReadRegister((int)offset));
            }
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (Gate)
        {
            if (offset >= 0x100)
            {
                WriteDeviceConfig((int)(offset - 0x100), data);
            }
            else if (data.Length == 4)
            {
                WriteRegister((int)offset, BinaryPrimitives.ReadUInt32LittleEndian(data));
            }
        }
    }

    /// <inheritdoc/>
    public override void SignalQueue(int queue) => Raise(1);

    /// <inheritdoc/>
    public override void SignalConfigChanged() => Raise(2);

    /// <inheritdoc/>
    protected override void ResetRegisters() => Volatile.Write(ref _isr, 0);

    /// <inheritdoc/>
    protected override (int InterruptStatus, int ConfigVector) Interrupts
    {
        get => (Volatile.Read(ref _isr), 0xFFFF);
        set => Volatile.Write(ref _isr, value.InterruptStatus);
    }

    private void Raise(int cause)
    {
        // Edge semantics: every cause is a new pulse, and the driver clears what it saw through InterruptACK.
        Interlocked.Or(ref _isr, cause);
        _line.Set(true);
        _line.Set(false);
    }

    private uint ReadRegister(int offset) => offset switch
    {
        0x000 => 0x7472_6976, // "virt"
        0x004 => 2,
        0x008 => Device.DeviceType,
        0x00C => 0x4D4D_5631,
        0x010 => Features.ReadDevice(),
        0x034 => Selected?.Max ?? 0u,
        0x044 => Selected?.Enabled == true ? 1u : 0u,
        0x060 => (uint)Volatile.Read(ref _isr),
        0x070 => ReadStatus(),
        0x0B0 or 0x0B4 or 0x0B8 or 0x0BC => uint.MaxValue, // no shared memory: length and base -1 (4.2.2)
        0x0FC => ConfigGeneration,
        _ => 0,
    };

    private void WriteRegister(int offset, uint value)
    {
        switch (offset)
        {
            case 0x014:
                Features.DeviceSelect = value;
                break;
            case 0x020:
                WriteDriverFeatures(value);
                break;
            case 0x024:
                Features.DriverSelect = value;
                break;
            case 0x030:
                QueueSelect = value;
                break;
            case (int)NotifyOffset:
                Notify(value);
                break;
            case 0x064:
                Interlocked.And(ref _isr, (int)~value);
                break;
            case 0x070 when (byte)value != 0 || value == 0: // only zero resets (4.2.2), not a low byte of zero
                WriteStatus((byte)value);
                break;
            case 0x070:
                break;
            default:
                if (Selected is { } queue)
                {
                    WriteQueue(queue, offset, value);
                }

                break;
        }
    }

    private void WriteQueue(QueueSetup queue, int offset, uint value)
    {
        if (offset == 0x044)
        {
            bool enabled = (value & 1) != 0;
            if (queue.Enabled && !enabled)
            {
                // 4.2.2.2: nothing of it is touched once QueueReady reads as 0
                Halt($"queue {QueueSelect} was taken away while it was in use");
            }

            queue.Enabled = enabled;
            return;
        }

        if (queue.Enabled)
        {
            return;
        }

        switch (offset)
        {
            case 0x038:
                queue.Size = (ushort)Math.Min(value, queue.Max);
                break;
            case 0x080:
                queue.Descriptors = Low(queue.Descriptors, value);
                break;
            case 0x084:
                queue.Descriptors = High(queue.Descriptors, value);
                break;
            case 0x090:
                queue.Driver = Low(queue.Driver, value);
                break;
            case 0x094:
                queue.Driver = High(queue.Driver, value);
                break;
            case 0x0A0:
                queue.Device = Low(queue.Device, value);
                break;
            case 0x0A4:
                queue.Device = High(queue.Device, value);
                break;
            default:
                break;
        }
    }

    private static ulong Low(ulong old, uint value) => (old & 0xFFFF_FFFF_0000_0000) | value;

    private static ulong High(ulong old, uint value) => (old & 0xFFFF_FFFF) | ((ulong)value << 32);
}
