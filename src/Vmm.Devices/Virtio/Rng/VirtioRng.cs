using Vmm.Interop;

namespace Vmm.Devices.Virtio.Rng;

/// <summary>
/// A virtio entropy device (virtio 1.2 section 5.4): fills buffers from the host's random generator on a thread of its own.
/// </summary>
/// <param name="name">Names its thread.</param>
public sealed class VirtioRng(string name = "rng") : QueuedDevice(name)
{
    /// <summary>Most bytes given for one chain; a chain asks for what it likes, 5.4.6.1 lets the device return less.</summary>
    public const int MaxBytesPerChain = 64 * 1024;

    /// <inheritdoc/>
    public override ushort DeviceType => 4;

    /// <inheritdoc/>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [64];

    /// <inheritdoc/>
    public override int ConfigLength => 0;

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    private protected override IQueueService? CreateService(VirtioActivation activation) =>
        activation.Queues.Count > 0 && activation.Queues[0] is not null ? new Service(activation) : null;

    private sealed class Service(VirtioActivation activation) : OneQueueService(activation, mostReadable: 0, MaxBytesPerChain)
    {
        // 5.4.6: buffers are device-writable; a readable one is skipped.
        public override ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            for (int i = 0; i < chain.WritablePieces; i++)
            {
                Span<byte> piece = chain.WritablePiece(i);
                HostRandom.Fill(piece);
                written += (uint)piece.Length;
            }

            return ChainResult.Done;
        }
    }
}
