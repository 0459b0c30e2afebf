using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;
using Vmm.Memory;

namespace Vmm.Testing.Virtio;

/// <summary>A driver of virtio-mmio (virtio 1.2 section 4.2).</summary>
public sealed class MmioPort : DriverPort, IInterruptLine
{
    public const ulong Base = 0xFEB0_0000;
    private readonly VirtioMmio _window;
    private int _pulses;

    public MmioPort(VirtioDevice device, GuestMemory memory)
    {
        _window = new VirtioMmio(device, memory, this);
        Bus.Map(Base, VirtioMmio.WindowLength, _window, "window");
    }

    public AddressBus Bus { get; } = new("MMIO");

    public override VirtioTransport Transport => _window;

    public override byte Status
    {
        get => (byte)Read(0x70);
        set => Write(0x70, value);
    }

    public override ulong Offered
    {
        get
        {
            Write(0x14, 1);
            ulong high = Read(0x10);
            Write(0x14, 0);
            return Read(0x10) | (high << 32);
        }
    }

    /// <summary>One when the cause stands in InterruptStatus; the guest's handler takes it back by InterruptACK.</summary>
    public override int ConfigInterrupts => (int)(Read(0x60) >> 1 & 1);

    public int Pulses => Volatile.Read(ref _pulses);

    public override ushort Size
    {
        get => (ushort)Read(0x34);
        set => Write(0x38, value);
    }

    public override bool Enabled
    {
        get => Read(0x44) != 0;
        set => Write(0x44, value ? 1u : 0);
    }

    public override void Accept(ulong features)
    {
        Write(0x24, 0);
        Write(0x20, (uint)features);
        Write(0x24, 1);
        Write(0x20, (uint)(features >> 32));
    }

    public override void Select(uint queue) => Write(0x30, queue);

    public override void Place(ulong table, ulong driver, ulong device)
    {
        ulong at = 0x80;
        foreach (ulong part in (ReadOnlySpan<ulong>)[table, driver, device])
        {
            Write(at, (uint)part);
            Write(at + 4, (uint)(part >> 32));
            at += 0x10;
        }
    }

    public override void Notify(uint queue) => Write(0x50, queue);

    public override void Listen(int queue) { }

    public override void ReadConfig(int offset, Span<byte> data) => Bus.Read(Base + 0x100 + (ulong)offset, data);

    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => Bus.Write(Base + 0x100 + (ulong)offset, data);

    public uint Read(ulong register, int length = 4) => Get(Bus, Base + register, length);

    public void Write(ulong register, uint value, int length = 4) => Put(Bus, Base + register, length, value);

    public void Set(bool level)
    {
        if (level)
        {
            Interlocked.Increment(ref _pulses);
            Interrupted?.Invoke();
        }
    }

    public override void Dispose() => _window.Dispose();
}
