using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>What a recovery site may say: its codes, and what a sound answer is.</summary>
internal static class PeerWords
{
    /// <summary>It has no replica of the VM.</summary>
    internal const string NotFound = "replica-not-found";

    /// <summary>Not so many bytes have arrived.</summary>
    internal const string Offset = "replica-offset";

    /// <summary>What is offered does not stand on its newest point, or not on its generation.</summary>
    internal const string Parent = "replica-parent";

    /// <summary>What is offered makes no sense to it.</summary>
    internal const string Refused = "replica-refused";

    private const int MostDisks = 256, LongestWord = 64;
    private const ulong MostDisk = 1UL << 46;

    /// <summary>What is wrong with an answer; null: nothing that can be seen.</summary>
    /// <param name="info">The answer.</param>
    /// <param name="vm">The VM that it has to be about.</param>
    internal static string? ProblemOf(ReplicaSiteInfo? info, string vm) =>
        info is not { Generations: not null, Roots: not null, Newest: not null } ? "what it answers is no replica"
        : !string.Equals(info.Vm, vm, StringComparison.Ordinal) ? "what it answers is about another VM"
        : !Enum.IsDefined(info.State) ? "the replica is in a state that this vmmd does not know"
        : !IsGenerations(info.Generations) ? "its generations are none"
        : info.Newest.Length > 0 && !IsId(info.Newest) ? "its newest point is none"
        : info.Roots.Count > MostDisks || (info.Newest.Length > 0 && info.Roots.Count == 0) || !info.Roots.All(IsDisk)
            ? "the disks of its newest point are none"
        : info.Intake is { } intake && (!IsId(intake.Id) || intake.Arrived is not { Count: <= MostDisks })
            ? "the point that comes is none"
        : null;

    /// <summary>Whether a text is an id as both sites write it.</summary>
    internal static bool IsId(string? text) => Guid.TryParseExact(text, "D", out Guid id) && id != Guid.Empty;

    private static bool IsDisk(ReplicaPointDisk? disk) => disk is { Name.Length: > 0 and <= LongestWord, Root.Length: 64 }
        && disk.Root.All(char.IsAsciiHexDigit) && disk.Bytes is > 0 and <= MostDisk && disk.Bytes % 512 == 0;

    private static bool IsGenerations(ReplicaGenerations known) => IsId(known.Current)
        && IsIdOrNone(known.LastCommon) && IsIdOrNone(known.Older) && IsIdOrNone(known.Oldest);

    private static bool IsIdOrNone(string? text) => text is { Length: 0 } || IsId(text);
}
