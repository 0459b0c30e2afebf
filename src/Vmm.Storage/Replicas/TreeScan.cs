using System.Security.Cryptography;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>Hashes a disk from its beginning to its end. What its images say are zeros is not read. For one thread.</summary>
internal static class TreeScan
{
    /// <summary>Does so; zeros are left out.</summary>
    /// <param name="chain">The disk.</param>
    /// <param name="use">Gets the number of each extent with its hash.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">The disk cannot be read.</exception>
    internal static void Run(ImageChain chain, Action<ulong, byte[]> use, ToolProgress progress)
    {
        byte[] content = new byte[DeltaFormat.ExtentBytes], leaf = new byte[DeltaFormat.HashBytes];
        progress.Begin(chain.Size);
        for (ulong at = 0; at < chain.Size;)
        {
            ulong left = chain.Size - at;
            DiskExtent mapped = chain.Map(at, left);
            ulong zeros = mapped.Kind is not (DiskExtentKind.Unallocated or DiskExtentKind.Zero) ? 0
                : mapped.Length == left ? left
                : mapped.Length / DeltaFormat.ExtentBytes * DeltaFormat.ExtentBytes;
            int take = zeros > 0 ? 0 : (int)Math.Min(DeltaFormat.ExtentBytes, left);
            if (take > 0)
            {
                chain.Read(content.AsSpan(0, take), at);
                content.AsSpan(take).Clear();
                if (content.AsSpan().ContainsAnyExcept((byte)0))
                {
                    _ = SHA256.HashData(content, leaf);
                    use(at / DeltaFormat.ExtentBytes, leaf);
                }
            }

            at += zeros + (uint)take;
            progress.Advance(zeros + (uint)take);
        }
    }

    /// <summary>The root of a disk.</summary>
    /// <exception cref="BlockException">The disk cannot be read.</exception>
    internal static string RootOf(ImageChain chain, ToolProgress progress)
    {
        using DiskTree tree = new((chain.Size + 511) & ~511ul);
        Run(chain, (extent, leaf) => tree.Add(extent, leaf), progress);
        return Convert.ToHexStringLower(tree.Finish());
    }
}
