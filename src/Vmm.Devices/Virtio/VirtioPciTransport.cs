using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>
/// The BAR of a virtio-pci function: register windows over <see cref="VirtioTransport"/> (virtio 1.2 sections 4.1.4.3 to 4.1.4.6).
/// </summary>
internal sealed class VirtioPciTransport(VirtioDevice device, GuestMemory memory, MsixTable msix)
    : VirtioTransport(device, memory, mayTransfer: false), IBusDevice
{
    private int _isr;
    private int _configVector = 0xFFFF;

    internal MsixTable Msix => msix;

    /// <summary>The function's interrupt pin, which causes without MSI-X go to (virtio 1.2, 4.1.4.5).</summary>
    internal IntxPin? Intx { get; set; }

    /// <summary>Bus master enable.</summary>
    internal void AllowTransfers(bool allowed) => SetTransfers(allowed);

    /// <summary>Where the BAR is while the doorbells are bound.</summary>
    internal GuestAddress? BoundAt { get; set; }

    internal EventFd QueueDoorbell(int queue) => Doorbell(queue);

    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        lock (Gate)
        {
            if (Gone)
            {
                data.Fill(0xFF);
                return;
            }

            switch (offset)
            {
                case < VirtioPciFunction.IsrOffset:
                    ReadCommon((int)offset, data);
                    break;
                case < VirtioPciFunction.DeviceOffset:
                    TakeHeld();
                    data[0] = offset == VirtioPciFunction.IsrOffset ? TakeCauses() : (byte)0;
                    break;
                case < VirtioPciFunction.NotifyOffset:
                    ReadDeviceConfig((int)(offset - VirtioPciFunction.DeviceOffset), data);
                    break;
                case < VirtioPciFunction.TableOffset:
                    break;
                case < VirtioPciFunction.PendingOffset:
                    msix.ReadTable(offset - VirtioPciFunction.TableOffset, data);
                    break;
                default:
                    msix.ReadPending(offset - VirtioPciFunction.PendingOffset, data);
                    break;
            }
        }
    }

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (Gate)
        {
            if (Gone)
            {
                return;
            }

            switch (offset)
            {
                case < VirtioPciFunction.IsrOffset:
                    WriteCommon((int)offset, data);
                    break;
                case >= VirtioPciFunction.DeviceOffset and < VirtioPciFunction.NotifyOffset:
                    WriteDeviceConfig((int)(offset - VirtioPciFunction.DeviceOffset), data);
                    break;
                case >= VirtioPciFunction.NotifyOffset and < VirtioPciFunction.TableOffset:
                    Notify((uint)(offset - VirtioPciFunction.NotifyOffset) / 4);
                    break;
                case >= VirtioPciFunction.TableOffset and < VirtioPciFunction.PendingOffset:
                    msix.WriteTable(offset - VirtioPciFunction.TableOffset, data);
                    break;
                default:
                    break;
            }
        }
    }

    /// <summary>Message control was written. Turned on or off, others have to send their interrupts another way from now on.</summary>
    internal void SetMessageControl(ushort value)
    {
        lock (Gate)
        {
            bool was = msix.Enabled;
            msix.SetControl(value);
            for (int queue = 0; queue < QueueCount && msix.Enabled != was; queue++)
            {
                ChangeQueueTrigger(queue);
            }

            TakeHeld();
            Intx?.Update();
        }
    }

    // A message is a write to memory: there is none without bus master enable.
    public override void SignalQueue(int queue)
    {
        if (msix.Enabled)
        {
            if (MayTransfer)
            {
                msix.Signal(QueueVector(queue));
            }
        }
        else
        {
            Raise(1);
        }
    }

    /// <summary>Only while MSI-X is on: without it a cause is a bit, and a level, that somebody has to set.</summary>
    public override EventFd? QueueTrigger(int queue) => msix.Enabled ? msix.HandTrigger(QueueVector(queue)) : null;

    /// <summary>The queues of a vector that was set up after their driver was ready.</summary>
    internal void VectorRouted(int vector)
    {
        for (int queue = 0; queue < QueueCount; queue++)
        {
            if (QueueVector(queue) == vector)
            {
                ChangeQueueTrigger(queue);
            }
        }
    }

    public override void SignalConfigChanged()
    {
        // 4.1.4.5.1: this bit also while MSI-X is on, and before the message: one vector may serve queues and configuration.
        Raise(2);
        if (msix.Enabled && MayTransfer)
        {
            msix.Signal(Volatile.Read(ref _configVector));
        }
    }

    /// <inheritdoc/>
    protected override (int InterruptStatus, int ConfigVector) Interrupts
    {
        get => (Volatile.Read(ref _isr), Volatile.Read(ref _configVector));
        set
        {
            Volatile.Write(ref _isr, value.InterruptStatus);
            Volatile.Write(ref _configVector, value.ConfigVector);
            Intx?.Update();
        }
    }

    /// <inheritdoc/>
    protected override int Vectors => msix.Count;

    /// <summary>The Interrupt Status bit of the PCI status register: a cause waits and MSI-X is off (4.1.4.5.1).</summary>
    internal bool InterruptPending => !msix.Enabled && Volatile.Read(ref _isr) != 0;

    protected override void ResetRegisters()
    {
        Volatile.Write(ref _isr, 0);
        Volatile.Write(ref _configVector, 0xFFFF);
        msix.TakeTriggersBack();
        Intx?.Update();
    }

    /// <summary>The causes so far. Reading them also lowers the pin (4.1.4.5).</summary>
    private byte TakeCauses()
    {
        byte causes = (byte)Interlocked.Exchange(ref _isr, 0);
        Intx?.Update();
        return causes;
    }

    private void TakeHeld()
    {
        if (!msix.Enabled && msix.TakeHeld())
        {
            Raise(1);
        }
    }

    // A cause that finds another one finds the pin up, or somebody who is about to raise it.
    private void Raise(int cause)
    {
        if (Interlocked.Or(ref _isr, cause) == 0)
        {
            Intx?.Update();
        }
    }

    private void ReadCommon(int offset, Span<byte> data)
    {
        QueueSetup? queue = Selected;
        ulong value = offset switch
        {
            0 => Features.DeviceSelect,
            4 => Features.ReadDevice(),
            8 => Features.DriverSelect,
            12 => Features.ReadDriver(),
            16 => (uint)_configVector,
            18 => (uint)QueueCount,
            20 => ReadStatus(),
            21 => ConfigGeneration & 0xFF,
            22 => QueueSelect,
            24 => queue?.Size ?? 0u,
            26 => (uint)(queue?.Vector ?? 0xFFFF),
            28 => queue?.Enabled == true ? 1u : 0u,
            30 => QueueSelect,
            32 => queue?.Descriptors ?? 0,
            36 => (queue?.Descriptors ?? 0) >> 32,
            40 => queue?.Driver ?? 0,
            44 => (queue?.Driver ?? 0) >> 32,
            48 => queue?.Device ?? 0,
            52 => (queue?.Device ?? 0) >> 32,
            _ => 0,
        };
        Span<byte> raw = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(raw, value);
        raw[..Math.Min(data.Length, 8)].CopyTo(data);
    }

    private void WriteCommon(int offset, ReadOnlySpan<byte> data)
    {
        Span<byte> raw = stackalloc byte[8];
        raw.Clear();
        data[..Math.Min(data.Length, 8)].CopyTo(raw);
        ulong wide = BinaryPrimitives.ReadUInt64LittleEndian(raw);
        uint value = (uint)wide;
        switch (offset)
        {
            case 0:
                Features.DeviceSelect = value;
                break;
            case 8:
                Features.DriverSelect = value;
                break;
            case 12:
                WriteDriverFeatures(value);
                break;
            case 16:
                Volatile.Write(ref _configVector, AcceptVector(value));
                break;
            case 20:
                WriteStatus((byte)value);
                break;
            case 22:
                QueueSelect = value & 0xFFFF;
                break;
            default:
                WriteQueue(offset, value, wide, data.Length);
                break;
        }
    }

    private void WriteQueue(int offset, uint value, ulong wide, int length)
    {
        if (Selected is not { } queue)
        {
            return;
        }

        if (offset == 26)
        {
            int old = queue.Vector;
            queue.Vector = AcceptVector(value);
            if (queue.Vector != old)
            {
                ChangeQueueTrigger((int)QueueSelect);
            }

            return;
        }

        // 4.1.4.3.2: an enabled queue's place may not change.
        if (queue.Enabled)
        {
            return;
        }

        switch (offset)
        {
            case 24:
                queue.Size = (ushort)Math.Min(value, queue.Max);
                break;
            case 28:
                queue.Enabled = (value & 0xFFFF) == 1;
                break;
            case 32 or 36:
                queue.Descriptors = Merge(queue.Descriptors, offset == 36, value, wide, length);
                break;
            case 40 or 44:
                queue.Driver = Merge(queue.Driver, offset == 44, value, wide, length);
                break;
            case 48 or 52:
                queue.Device = Merge(queue.Device, offset == 52, value, wide, length);
                break;
            default:
                break;
        }
    }

    private static ulong Merge(ulong old, bool high, uint value, ulong wide, int length) =>
        length == 8 ? wide : high ? (old & 0xFFFF_FFFF) | ((ulong)value << 32) : (old & 0xFFFF_FFFF_0000_0000) | value;

    private int AcceptVector(uint value) => (value & 0xFFFF) < (uint)msix.Count ? (int)(value & 0xFFFF) : 0xFFFF;
}
