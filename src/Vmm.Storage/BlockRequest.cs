using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;

namespace Vmm.Storage;

/// <summary>What a request does.</summary>
public enum BlockKind : byte
{
    /// <summary>
    /// Nothing: it takes its turn among the others and is answered by the <see cref="RequestRouter"/>. Storage never sees it.
    /// </summary>
    None,

    /// <summary>Reads into the vectors.</summary>
    Read,

    /// <summary>Writes what the vectors hold.</summary>
    Write,

    /// <summary>Everything that completed before is on stable storage when this completes.</summary>
    Flush,

    /// <summary>The range's content is no longer needed (a hint).</summary>
    Discard,

    /// <summary>The range reads as zeros.</summary>
    WriteZeroes,
}

/// <summary>How a request is to be done.</summary>
[Flags]
public enum BlockFlags : byte
{
    /// <summary>As usual.</summary>
    None = 0,

    /// <summary>Forced unit access: what is written is on stable storage when the request completes.</summary>
    Fua = 1,

    /// <summary>The space of written zeros may be given back.</summary>
    MayUnmap = 2,
}

/// <summary>Where a request is.</summary>
public enum BlockState : byte
{
    /// <summary>Prepared, and with nobody but its owner.</summary>
    New,

    /// <summary>A router holds it back, or keeps it because it failed. It has no pages.</summary>
    Held,

    /// <summary>A node works on it.</summary>
    Running,

    /// <summary>A part of it is over; the node that takes it piece by piece goes on with the next.</summary>
    BetweenParts,

    /// <summary>Its owner has its status.</summary>
    Done,
}

/// <summary>Who hears of the end of requests: a front end, or a node that they passed.</summary>
public interface IBlockOwner
{
    /// <summary>
    /// The request is over as far as the nodes below are concerned. A node that it passed through calls <see cref="BlockRequest.Complete"/>
    /// to hand it on; its owner may prepare it again.
    /// </summary>
    void Completed(BlockRequest request, DiskStatus status);
}

/// <summary>
/// One request to storage, from the front end to the leaf: there is no other record of it on the way, and its number in the loop is its tag
/// in the ring. Pooled by its owner: made once for each slot, prepared for each use. Belongs to the thread of its loop.
/// </summary>
/// <param name="owner">Hears of its end.</param>
/// <param name="token">What the owner knows it by, e.g. the number of its slot.</param>
/// <param name="pages">Names the guest pages of each use; null for requests on memory of ours.</param>
public sealed class BlockRequest(IBlockOwner owner, int token = 0, PageLease? pages = null) : IoOperation, IPageWaiter
{
    /// <summary>Most nodes that a request can pass through between its owner and a leaf.</summary>
    public const int MaxNodes = 8;

    private readonly PassedNode[] _passed = new PassedNode[MaxNodes];
    private int _passedCount;
    private IBlockLeaf? _leaf;
    private IBlockPageWaiter? _pageWaiter;
    private Action? _pagesReady;

    /// <summary>Who hears of its end.</summary>
    public IBlockOwner Owner { get; } = owner;

    /// <summary>What the owner knows it by.</summary>
    public int Token { get; } = token;

    /// <summary>What it does.</summary>
    public BlockKind Kind { get; private set; }

    /// <summary>How it is to be done.</summary>
    public BlockFlags Flags { get; private set; }

    /// <summary>Where it is.</summary>
    public BlockState State { get; private set; } = BlockState.Done;

    /// <summary>First byte on the disk.</summary>
    public ulong Offset { get; private set; }

    /// <summary>Bytes, of the disk and of all vectors together.</summary>
    public uint Length { get; private set; }

    /// <summary>
    /// The guest pages that a read or write moves: named by the owner, held from the <see cref="DmaFilter"/> to the end. Null when its
    /// memory is not the guest's, or it moves none.
    /// </summary>
    public PageLease? Pages => Kind is BlockKind.Read or BlockKind.Write ? pages : null;

    /// <summary>The memory of a read or write. Nobody on the way changes the array.</summary>
    public ReadOnlySpan<IoVector> Vectors => HostSpan.Vectors(VectorAddress, VectorCount);

    /// <summary>Address of the first vector, for the kernel.</summary>
    public nint VectorAddress { get; private set; }

    /// <summary>Number of vectors.</summary>
    public int VectorCount { get; private set; }

    /// <summary>
    /// A failure that nobody may try again: a node refused the request, or its flush failed. What a failed flush has lost is gone, and one
    /// that succeeded later would say otherwise.
    /// </summary>
    public bool IsFinal { get; internal set; }

    /// <summary>
    /// Of a flush that failed: it was not carried out, and nothing was lost. Only such a one may be tried again.
    /// </summary>
    public bool LostNothing { get; internal set; }

    /// <summary>When its router took it or let it go on last, in ticks of the stopwatch.</summary>
    internal long Since { get; set; }

    /// <summary>Its place among the requests of the router that took it last.</summary>
    internal long Order { get; set; }

    /// <summary>What the leaf that runs it remembers of it.</summary>
    internal RawProgress Progress;

    /// <summary>The request behind this one in the one list in which it waits.</summary>
    internal BlockRequest? NextWaiting { get; set; }

    /// <summary>Makes it a new request; its vectors are <see cref="SetData"/>'s.</summary>
    /// <exception cref="InvalidOperationException">It is under way.</exception>
    public void Prepare(BlockKind kind, ulong offset = 0, uint length = 0, BlockFlags flags = BlockFlags.None)
    {
        Move(BlockState.New);
        Kind = kind;
        Offset = offset;
        Length = length;
        Flags = flags;
        VectorAddress = 0;
        VectorCount = 0;
        IsFinal = false;
        LostNothing = false;
    }

    /// <summary>
    /// Gives it the memory that it reads into or writes from: the vectors of its lease, or memory of ours. Array and memory have a fixed
    /// address and stay until the request is over.
    /// </summary>
    public void SetData(ReadOnlySpan<IoVector> vectors)
    {
        VectorAddress = HostSpan.AddressOf(vectors);
        VectorCount = vectors.Length;
    }

    /// <summary>
    /// A node goes on with one part of a request that it takes piece by piece: this range is all that nodes below see. Before the first
    /// part, and when the part before is over.
    /// </summary>
    public void TakePart(ulong offset, uint length, BlockFlags flags)
    {
        if (State == BlockState.Running)
        {
            Move(BlockState.BetweenParts);
        }

        Offset = offset;
        Length = length;
        Flags = flags;
    }

    /// <summary>The request goes on to another node, and <paramref name="node"/> hears first when it is over.</summary>
    public void PassThrough(IBlockOwner node) => _passed[_passedCount++].Node = node;

    /// <summary>A router holds it from now on.</summary>
    public void Hold()
    {
        if (State == BlockState.Running)
        {
            ThrowNoSuchMove(BlockState.Held);
        }

        Move(BlockState.Held);
    }

    /// <summary>The nodes behind a router are through with it, it failed, and the router issues it again later.</summary>
    internal void Keep() => Move(BlockState.Held);

    /// <summary>A held request is its owner's again, as if it had not been submitted.</summary>
    public void Withdraw()
    {
        Move(BlockState.New);
        _passedCount = 0;
    }

    /// <summary>
    /// A node that is no leaf answers it itself: it runs and is over with <paramref name="status"/>, which is delivered by the next
    /// <see cref="IoLoop.Poll"/>.
    /// </summary>
    public void Answer(DiskStatus status)
    {
        Move(BlockState.Running);
        IsFinal = true;
        _leaf = null;
        Loop!.CompleteLater(this, (int)status);
    }

    /// <summary>
    /// The next above hears of the end: the node that the request passed last, or its owner. Never called inside
    /// <see cref="IBlockNode.Submit"/>.
    /// </summary>
    /// <exception cref="InvalidOperationException">It does not run.</exception>
    public void Complete(DiskStatus status)
    {
        if (_passedCount > 0)
        {
            IBlockOwner node = _passed[--_passedCount].Node;
            if (State != BlockState.Running)
            {
                ThrowNoSuchMove(BlockState.Done);
            }

            node.Completed(this, status);
            return;
        }

        Move(BlockState.Done);
        Owner.Completed(this, status);
    }

    /// <summary>True when the disk may be asked for it: the range is on the disk, and nothing is written to a read-only one.</summary>
    internal bool IsInside(in BlockGeometry disk) => Offset <= disk.CapacityBytes && Length <= disk.CapacityBytes - Offset
        && (Kind == BlockKind.Read || !disk.ReadOnly);

    /// <summary>Who goes on with it when its pages came.</summary>
    internal IPageWaiter WaitWith(IBlockPageWaiter node)
    {
        _pageWaiter = node;
        return this;
    }

    /// <inheritdoc/>
    void IPageWaiter.PagesReady(PageLease lease) => Loop!.Post(_pagesReady ??= () => _pageWaiter!.PagesReady(this));

    /// <summary>The leaf that has it.</summary>
    internal IBlockLeaf? Leaf => _leaf;

    /// <summary>A leaf takes it.</summary>
    internal void Run(IBlockLeaf leaf)
    {
        Move(BlockState.Running);
        _leaf = leaf;
    }

    /// <inheritdoc/>
    protected override void OnCompleted(int result)
    {
        if (_leaf is { } leaf)
        {
            leaf.OnStep(this, result);
        }
        else
        {
            Complete((DiskStatus)result);
        }
    }

    // The transition table. Running → New does not exist: what a node works on is over first.
    private static bool IsMove(BlockState from, BlockState to) => (from, to) switch
    {
        (BlockState.Done, BlockState.New) => true,
        (BlockState.New, BlockState.New) => true, // prepared and not submitted
        (BlockState.New, BlockState.Held) => true,
        (BlockState.New, BlockState.Running) => true,
        (BlockState.Running, BlockState.Held) => true, // it failed, and is issued again later
        (BlockState.Running, BlockState.BetweenParts) => true,
        (BlockState.BetweenParts, BlockState.Running) => true,
        (BlockState.Held, BlockState.Running) => true,
        (BlockState.Held, BlockState.New) => true, // withdrawn
        (BlockState.Running, BlockState.Done) => true,
        _ => false,
    };

    private void Move(BlockState to)
    {
        if (!IsMove(State, to))
        {
            ThrowNoSuchMove(to);
        }

        State = to;
    }

    private void ThrowNoSuchMove(BlockState to) =>
        throw new InvalidOperationException($"A block request that is {State} cannot become {to}.");

    // A struct, so that storing into the array needs no look at the node's type.
    private struct PassedNode
    {
        internal IBlockOwner Node;
    }
}

/// <summary>A leaf that runs requests step by step on a loop.</summary>
internal interface IBlockLeaf
{
    /// <summary>The step in flight ended with so many bytes, or -errno.</summary>
    void OnStep(BlockRequest request, int result);
}

/// <summary>A node that waits for the pages of requests.</summary>
internal interface IBlockPageWaiter
{
    /// <summary>The pages of a request came: they are to be acquired again.</summary>
    void PagesReady(BlockRequest request);
}
