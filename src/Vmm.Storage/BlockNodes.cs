using Vmm.Io;

namespace Vmm.Storage;

/// <summary>What all nodes have in common.</summary>
public static class BlockNodes
{
    /// <summary>
    /// Delivers completions of <paramref name="loop"/> until the node has nothing in flight. On the loop's thread, for disposing.
    /// </summary>
    public static void WaitForAll(this IBlockNode node, IoLoop loop)
    {
        loop.Submit();
        while (node.InFlight > 0)
        {
            if (loop.Poll() == 0)
            {
                loop.Wait();
            }
        }
    }
}
