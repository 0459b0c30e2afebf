using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>What the console of the VM is connected to.</summary>
public enum ConsoleKind
{
    /// <summary>The 16550 (<c>ttyS0</c>).</summary>
    Serial,

    /// <summary>A virtio console (<c>hvc0</c>); the 16550, if there is one, is not connected.</summary>
    Virtio,

    /// <summary>Output of both; input goes to the virtio console once its driver is there.</summary>
    Both,
}

/// <summary>How vmmd's balancer treats a VM.</summary>
public sealed record BalanceSpec
{
    /// <summary>Greatest weight.</summary>
    public const int MaxWeight = 10_000;

    /// <summary>What a balloon takes or gives back at once when the balancer has it.</summary>
    public const ulong BalloonBlock = 2 << 20;

    /// <summary>Share when there is not enough memory for all, 1 to <see cref="MaxWeight"/>.</summary>
    public int Weight { get; init; } = 100;

    /// <summary>
    /// For a VM whose memory is fixed: what its balloon leaves the guest at least. Null: the balloon is not the balancer's.
    /// </summary>
    public ByteSize? MinMemory { get; init; }
}

/// <summary>A memory balloon.</summary>
public sealed record BalloonSpec
{
    /// <summary>Size asked for at the start.</summary>
    public ByteSize Target { get; init; }

    /// <summary>The guest may take pages back when it runs out of memory.</summary>
    public bool DeflateOnOom { get; init; } = true;

    /// <summary>The guest reports free pages, whose memory the host takes until they are used again.</summary>
    public bool FreePageReporting { get; init; } = true;

    /// <summary>Seconds between questions for memory statistics; 0 asks only on demand.</summary>
    public int StatsInterval { get; init; }
}

/// <summary>A socket device.</summary>
public sealed record VsockSpec
{
    /// <summary>The guest's context id, from 3.</summary>
    public long Cid { get; init; } = 3;

    /// <summary>Unix socket for connections from the host; connections of the guest to port N go to this path with <c>_N</c>.</summary>
    public string Path { get; init; } = "";
}
