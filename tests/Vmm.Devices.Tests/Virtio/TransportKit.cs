using System.Runtime.InteropServices;
using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>A device that does nothing but remember what its transport told it.</summary>
internal sealed class DummyDevice : VirtioDevice
{
    private readonly byte[] _config = [1, 2, 3, 4, 5, 6, 7, 8];

    /// <summary>What Activate throws; null: nothing.</summary>
    public Exception? Refusal { get; set; }

    public ulong Required { get; init; }

    public override ulong RequiredFeatures => Required;

    /// <summary>The device changes its own configuration, without a word to anybody.</summary>
    public void Change(int offset, byte value) => _config[offset] = value;

    public VirtioActivation? Active { get; private set; }

    public int Resets { get; private set; }

    public override ushort DeviceType => 2;

    public override ulong DeviceFeatures => 1UL << 9;

    public override IReadOnlyList<ushort> QueueSizes { get; } = [16, 8];

    public override int ConfigLength => _config.Length;

    public override void ReadConfig(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset < _config.Length)
        {
            _config.AsSpan(offset, Math.Min(data.Length, _config.Length - offset)).CopyTo(data);
        }
    }

    public override void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length && offset + i < _config.Length; i++)
        {
            _config[offset + i] = data[i];
        }
    }

    public override void Activate(VirtioActivation activation) => Active = Refusal is null ? activation : throw Refusal;

    public override bool TryHold(TimeSpan patience) => true;

    public override void Resume()
    {
    }

    public override void Reset()
    {
        Active = null;
        Resets++;
    }

    protected override void Dispose(bool disposing) { }
}

/// <summary>Counts messages by slot, with the address and data they were routed to.</summary>
internal sealed class CountingMessages : IInterruptMessageFactory
{
    public Dictionary<int, int> Sent { get; } = [];

    public Dictionary<int, (ulong Address, uint Data)> Routes { get; } = [];

    public IInterruptMessage Route(object device, int slot, ulong address, uint data)
    {
        Routes[slot] = (address, data);
        return new Message(this, slot);
    }

    public void Release(object device) => Routes.Clear();

    private sealed class Message(CountingMessages owner, int slot) : IInterruptMessage
    {
        public void Signal() => owner.Sent[slot] = owner.Sent.GetValueOrDefault(slot) + 1;
    }
}

/// <summary>Remembers which doorbells are bound where.</summary>
internal sealed class RecordingDoorbells : IDoorbellBinder
{
    public HashSet<ulong> Bound { get; } = [];

    public void Bind(GuestAddress address, int length, ulong? datamatch, EventFd doorbell) => Assert.True(Bound.Add(address.Value));

    public void Unbind(GuestAddress address, int length, ulong? datamatch, EventFd doorbell) => Assert.True(Bound.Remove(address.Value));
}

/// <summary>A megabyte of guest RAM at address 0.</summary>
internal sealed unsafe class SmallRam : IDisposable
{
    private readonly void* _bytes = NativeMemory.AllocZeroed(1 << 20);

    public GuestMemory Memory => new([new GuestRegion(new GuestAddress(0), new ByteSize((ulong)(1 << 20)), (nint)_bytes)]);

    public void Dispose() => NativeMemory.Free(_bytes);
}
