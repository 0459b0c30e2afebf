using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// A rate limit as what a queue's requests have to pass. Each request is one operation, whatever it does; in bytes it costs what it moves.
/// Zeros cost where the host has to write them.
/// </summary>
internal sealed class LimitGate(RateLimiter limiter, IBlockNode disk) : IRequestGate
{
    public bool TryPass(BlockRequest request, out int wait) => limiter.TryTake(Bytes(request), RateLimiter.Now, out wait);

    private ulong Bytes(BlockRequest request) => request.Kind switch
    {
        BlockKind.Discard => 0,
        BlockKind.WriteZeroes => disk.WritesZeroesAsData((request.Flags & BlockFlags.MayUnmap) != 0) ? request.Length : 0,
        _ => request.Length,
    };
}
