using System.Runtime.InteropServices;
using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;
using Vmm.Memory;

namespace Vmm.State.Tests.Parts;

/// <summary>A virtio device of two queues that serves nothing and tells when it begins and ends.</summary>
internal sealed class FakeVirtio(List<string> output) : VirtioDevice
{
    public override ushort DeviceType => 2;

    public override ulong DeviceFeatures => 1UL << 9;

    public override IReadOnlyList<ushort> QueueSizes { get; } = [16, 8];

    public override int ConfigLength => 8;

    internal VirtioActivation? Active { get; private set; }

    public override void ReadConfig(int offset, Span<byte> data) => data.Fill(0x5A);

    public override void Activate(VirtioActivation activation)
    {
        Active = activation;
        output.Add($"active {activation.Features:x} {string.Join(' ', activation.Queues.Select(q => q?.Queue.Capture()))}");
    }

    public override void Reset()
    {
        if (Active is not null)
        {
            Active = null;
            output.Add("reset");
        }
    }

    public override bool TryHold(TimeSpan patience)
    {
        output.Add("hold");
        return true;
    }

    public override void Resume() => output.Add("resume");

    protected override void Dispose(bool disposing) { }
}

/// <summary>Writes down which messages are set up and sent.</summary>
internal sealed class LoggedMessages(List<string> output) : IInterruptMessageFactory
{
    public IInterruptMessage Route(object device, int slot, ulong address, uint data)
    {
        output.Add($"route {slot} {address:x} {data:x}");
        return new Message(slot, output);
    }

    public void Release(object device) => output.Add("release");

    private sealed class Message(int slot, List<string> output) : IInterruptMessage
    {
        public void Signal() => output.Add($"message {slot}");
    }
}

/// <summary>A megabyte of guest RAM at address 0, for as long as the process lives.</summary>
internal static unsafe class SharedRam
{
    internal static GuestMemory Memory { get; } =
        new([new GuestRegion(new GuestAddress(0), new ByteSize((ulong)(1 << 20)), (nint)NativeMemory.AllocZeroed(1 << 20))]);
}

/// <summary>A piece of a bus as a device of its own.</summary>
internal sealed class BusPiece(IBusDevice device, ulong start) : IBusDevice
{
    public void Read(ulong offset, Span<byte> data) => device.Read(start + offset, data);

    public void Write(ulong offset, ReadOnlySpan<byte> data) => device.Write(start + offset, data);
}

/// <summary>A piece of the memory map.</summary>
internal sealed class Mapped(AddressBus bus, ulong start) : IBusDevice
{
    public void Read(ulong offset, Span<byte> data) => bus.Read(start + offset, data);

    public void Write(ulong offset, ReadOnlySpan<byte> data) => bus.Write(start + offset, data);
}
