namespace Vmm.Storage;

/// <summary>What is at the first bytes of a range of a disk.</summary>
/// <param name="Length">For how many bytes that is so, at least 1.</param>
/// <param name="IsZero">They read as zeros.</param>
/// <param name="Layer">The image that says so, counted from the top; their number when none does.</param>
internal readonly record struct MappedRange(ulong Length, bool IsZero, int Layer);

/// <summary>A node that tells what is where from its disk's tables, without reading it.</summary>
internal interface IMappedNode : IBlockNode
{
    /// <summary>Asks what is at the first bytes of a range; <see cref="Answer"/> has it when the request ends well.</summary>
    /// <param name="request">A read of the range, without memory.</param>
    void Ask(BlockRequest request);

    /// <summary>What was found last.</summary>
    MappedRange Answer { get; }
}
