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
            if (loop.Poll() == 0 && node.InFlight > 0) // as IoLoop.DeliverUntil does, which needs a delegate
            {
                loop.Wait();
            }
        }
    }

    /// <summary>
    /// <see cref="IBlockNode.FlushAndCloseAsync"/> to its end, delivering completions of <paramref name="loop"/>. On the loop's thread.
    /// </summary>
    /// <exception cref="BlockException">What was written last may not be on stable storage.</exception>
    public static void FlushAndClose(this IBlockNode node, IoLoop loop)
    {
        Task closed = node.FlushAndCloseAsync().AsTask();
        loop.DeliverUntil(closed);
        closed.GetAwaiter().GetResult();
    }

    /// <summary>Delivers completions of the loop until a task is over that ends by one of them. On the loop's thread.</summary>
    public static void DeliverUntil(this IoLoop loop, Task over) => loop.DeliverUntil(() => over.IsCompleted);
}
