using Vmm.Interop;

namespace Vmm.Memory.Tests;

/// <summary>Pages on nodes of our own making: nodes have room or not, pages can be busy for a while.</summary>
internal sealed class FakePages(int[] nodes, ulong pageSize = 4096) : IMovablePages
{
    private readonly Dictionary<int, int> _moves = [];

    public ulong PageSize => pageSize;

    public ulong Count => (ulong)nodes.Length;

    internal int[] Nodes => nodes;

    /// <summary>How many pages still fit on a node; one that is not named has room for all.</summary>
    internal Dictionary<int, int> Room { get; } = [];

    /// <summary>How often a page refuses to move.</summary>
    internal Dictionary<int, int> Busy { get; } = [];

    internal int LargestMove { get; private set; }

    internal int Errno { get; set; }

    internal Action? Moving { get; set; }

    public void SetPolicy(MemoryPolicyMode? mode, IReadOnlyList<int> hostNodes) { }

    public void Locate(ulong first, Span<int> hostNodes) => nodes.AsSpan((int)first, hostNodes.Length).CopyTo(hostNodes);

    public int Move(ReadOnlySpan<ulong> pages, int hostNode)
    {
        Moving?.Invoke();
        LargestMove = Math.Max(LargestMove, pages.Length);
        if (Errno != 0)
        {
            return Errno;
        }

        foreach (ulong number in pages)
        {
            int page = (int)number;
            _moves[page] = _moves.GetValueOrDefault(page) + 1;
            if (_moves[page] <= Busy.GetValueOrDefault(page))
            {
                continue;
            }

            if (Room.TryGetValue(hostNode, out int room))
            {
                if (room == 0)
                {
                    return 12; // ENOMEM
                }

                Room[hostNode] = room - 1;
            }

            nodes[page] = hostNode;
        }

        return 0;
    }
}

/// <summary>A clock that only waiting moves.</summary>
internal sealed class FakeClock : TimeProvider
{
    private long _now = 1000;

    public override long TimestampFrequency => 1_000_000;

    internal List<TimeSpan> Waits { get; } = [];

    public override long GetTimestamp() => _now;

    internal void Wait(TimeSpan time, CancellationToken cancel)
    {
        Waits.Add(time);
        _now += cancel.IsCancellationRequested ? 0 : (long)time.TotalMicroseconds;
    }
}
