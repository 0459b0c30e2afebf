namespace Vmm.Daemon.Pressure;

/// <summary>Everything a decision depends on but what was decided before.</summary>
/// <param name="Host">The host's memory.</param>
/// <param name="Reserve">Bytes of it that stay available.</param>
/// <param name="Vms">VMs that run with a resident limit; from others nothing can be taken.</param>
/// <param name="Enabled">False: what was taken is given back, and nothing else happens.</param>
internal sealed record PressureSnapshot(HostReading Host, ulong Reserve, IReadOnlyList<PressedVm> Vms, bool Enabled = true);

/// <summary>A VM with a resident limit, as its worker says it is.</summary>
/// <param name="Vm">Its name.</param>
/// <param name="Configured">Its resident limit, bytes: its spec's.</param>
/// <param name="Least">Bytes below which the limit in force never goes.</param>
/// <param name="InForce">The limit that its worker keeps to, bytes.</param>
/// <param name="Resident">Bytes in the host's memory.</param>
/// <param name="Weight">Its share beside others, 1 to 10000.</param>
internal sealed record PressedVm(string Vm, ulong Configured, ulong Least, ulong InForce, ulong Resident, int Weight)
{
    /// <summary>How much of its memory lies on one host node and no other, 0 to 1; empty: it may lie anywhere.</summary>
    internal IReadOnlyDictionary<int, double> Nodes { get; init; } = new Dictionary<int, double>();

    /// <summary>Pages that came from its swap file since its start.</summary>
    internal ulong PagesIn { get; init; }

    /// <summary>Pages that went there.</summary>
    internal ulong PagesOut { get; init; }

    /// <summary>Pages that were staged and touched again.</summary>
    internal ulong StagedFaults { get; init; }

    /// <summary>No page goes out of it: its swap file is full or fails.</summary>
    internal bool Stopped { get; init; }

    /// <summary>Its balloon; null: it has none that this loop may use.</summary>
    internal PressedBalloon? Balloon { get; init; }
}

/// <summary>The balloon of such a VM.</summary>
/// <param name="Target">Bytes that it was asked to take.</param>
/// <param name="Held">Bytes that it has.</param>
/// <param name="Memory">Bytes of the VM without it.</param>
/// <param name="Available">Bytes that the guest says it could use; null: it says nothing.</param>
/// <param name="Taken">The target is this loop's; otherwise it is somebody's, and left alone unless it is zero.</param>
internal sealed record PressedBalloon(ulong Target, ulong Held, ulong Memory, ulong? Available, bool Taken);

/// <summary>What a decision changes.</summary>
internal enum PressureMeans
{
    /// <summary>The resident limit in force.</summary>
    Limit,

    /// <summary>The size of the balloon.</summary>
    Balloon,
}

/// <summary>What a VM is to have, and why.</summary>
/// <param name="Vm">Its name.</param>
/// <param name="Means">What is changed.</param>
/// <param name="From">Bytes it has.</param>
/// <param name="To">Bytes it shall have.</param>
/// <param name="Reason">With the numbers.</param>
internal sealed record PressureDecision(string Vm, PressureMeans Means, ulong From, ulong To, string Reason)
{
    /// <summary>Something is taken from the VM.</summary>
    internal bool Takes => Means == PressureMeans.Limit ? To < From : To > From;
}

/// <summary>What the policy remembers from round to round.</summary>
internal sealed class PressureState
{
    internal Dictionary<string, Memo> Vms { get; } = new(StringComparer.Ordinal);

    /// <summary>Since when the host has more than the high mark everywhere; null: it has not.</summary>
    internal TimeSpan? CalmSince { get; set; }

    internal sealed class Memo
    {
        /// <summary>When its limit was changed last, and when it was raised last.</summary>
        internal TimeSpan? Changed { get; set; }

        internal TimeSpan? Raised { get; set; }

        /// <summary>The least that was resident while more is than the limit, and when that was.</summary>
        internal (ulong Resident, TimeSpan At)? Drain { get; set; }

        /// <summary>Its counters at the last look.</summary>
        internal (ulong In, ulong Out, ulong Staged, TimeSpan At)? Counters { get; set; }

        /// <summary>It waits for its pages: what is resident is in use.</summary>
        internal bool IsHot { get; set; }

        /// <summary>When its balloon was changed last, and before when it is not asked for more.</summary>
        internal TimeSpan? Ballooned { get; set; }

        internal TimeSpan? NoBalloonBefore { get; set; }

        /// <summary>The most that its balloon had of what it was asked for, and when that was.</summary>
        internal (ulong Held, TimeSpan At)? Inflation { get; set; }
    }
}
