using Vmm.Interop;
using Vmm.Memory;
using Vmm.Testing;

namespace Vmm.Testing.Virtio;

/// <summary>
/// RAM of a guest in a memfd, as a real machine has it, between two pages that nobody may touch: a device that writes beside it ends the
/// test run.
/// </summary>
public sealed class GuestRam : IDisposable
{
    public const int Bytes = 1 << 20;
    private const int Page = 4096;
    private readonly AddressReservation _addresses = new(Bytes + (2 * Page), Page);
    private readonly VnodeMemory _pages;
    private readonly GuestRegion _region;

    public GuestRam()
    {
        _pages = VnodeMemory.Create(
            new VnodePlacement(0, new ByteSize((ulong)Bytes), new ByteSize((ulong)Page), null, []),
            HostTopology.Unknown,
            within: _addresses,
            offset: Page);
        _region = _pages.Region(new(0), new ByteSize((ulong)Bytes), 0);
        Memory = new GuestMemory([_region]);
        Memory.TryGetSpan(new(0), Bytes, out Span<byte> all);
        for (int i = 0; i < Bytes; i += sizeof(uint))
        {
            BitConverter.TryWriteBytes(all[i..], 0xA5A5_0000u ^ (uint)i); // every word is its own canary
        }
    }

    public GuestMemory Memory { get; }

    /// <summary>The whole RAM, also while devices are told that it is gone.</summary>
    public Span<byte> All => HostSpan.Bytes(_region.HostAddress, Bytes);

    /// <summary>Devices see no RAM at <paramref name="from"/> and above; null: they see all of it.</summary>
    public void Cut(ulong? from) => Memory.ReplaceRegions(from is not { } end ? [_region]
        : end == 0 ? [] : [new GuestRegion(new(0), new ByteSize(end), _region.HostAddress)]);

    public void Dispose()
    {
        _pages.Dispose();
        _addresses.Dispose();
    }
}
