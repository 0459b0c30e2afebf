using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>Memory whose pages can be found and moved between host nodes while it is in use.</summary>
public interface IMovablePages
{
    /// <summary>Bytes of a page.</summary>
    ulong PageSize { get; }

    /// <summary>How many pages it has.</summary>
    ulong Count { get; }

    /// <summary>Says where pages come from that are not there yet; those that are stay where they are.</summary>
    /// <param name="mode">The policy; null is none.</param>
    /// <param name="hostNodes">Host nodes for the policy.</param>
    /// <exception cref="KernelException">The kernel refused; nothing changed.</exception>
    void SetPolicy(MemoryPolicyMode? mode, IReadOnlyList<int> hostNodes);

    /// <summary>The host node of each page from <paramref name="first"/> on, -1 for one that is not present.</summary>
    /// <exception cref="KernelException">The kernel cannot say.</exception>
    void Locate(ulong first, Span<int> hostNodes);

    /// <summary>Tries to move pages to one host node. Which ones went is for <see cref="Locate"/> to say.</summary>
    /// <param name="pages">Numbers of pages, ascending.</param>
    /// <param name="hostNode">Where to.</param>
    /// <returns>0, or the errno with which the kernel gave up.</returns>
    int Move(ReadOnlySpan<ulong> pages, int hostNode);
}
