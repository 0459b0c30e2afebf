using Vmm.State;

namespace Vmm.Devices.Firmware;

/// <summary>The bytes of a flash in its saved state: blocks that are erased are left out.</summary>
internal static class FlashBlocks
{
    private const byte Erased = 0xFF;

    internal static FlashBlockV1[] Capture(ReadOnlySpan<byte> bytes)
    {
        List<FlashBlockV1> blocks = [];
        for (int at = 0; at < bytes.Length; at += CfiFlash.BlockBytes)
        {
            ReadOnlySpan<byte> block = bytes.Slice(at, CfiFlash.BlockBytes);
            if (block.ContainsAnyExcept(Erased))
            {
                blocks.Add(new FlashBlockV1 { Number = at / CfiFlash.BlockBytes, Bytes = block.ToArray() });
            }
        }

        return [.. blocks];
    }

    /// <exception cref="StateException">A block does not fit: nothing was changed.</exception>
    internal static void Restore(FlashBlockV1[] blocks, Span<byte> bytes)
    {
        int count = bytes.Length / CfiFlash.BlockBytes, next = 0;
        foreach (FlashBlockV1 block in blocks)
        {
            if (block.Number < next || block.Number >= count || block.Bytes.Length != CfiFlash.BlockBytes)
            {
                throw new StateException(
                    $"{CfiFlashStateV1.Kind}: block {block.Number} of {block.Bytes.Length} bytes does not fit a flash of {count} blocks");
            }

            next = block.Number + 1;
        }

        bytes.Fill(Erased);
        foreach (FlashBlockV1 block in blocks)
        {
            block.Bytes.CopyTo(bytes[(block.Number * CfiFlash.BlockBytes)..]);
        }
    }
}
