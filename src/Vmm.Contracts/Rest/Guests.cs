using System.Globalization;

namespace Vmm.Contracts.Rest;

/// <summary>The guest agent of a running VM, as it answers now.</summary>
/// <param name="Answers">One answers.</param>
/// <param name="Version">Its release; null when none answers.</param>
/// <param name="Memory">It tells how each NUMA node of the guest stands.</param>
/// <param name="Freeze">It can freeze the guest's file systems for a snapshot.</param>
/// <param name="Why">Why none answers, or why it cannot freeze; of the guest's own saying in the second case.</param>
public sealed record GuestAgentInfo(bool Answers, string? Version = null, bool Memory = false, bool Freeze = false, string? Why = null);

/// <summary>Whether a guest's file systems were frozen.</summary>
public enum QuiesceState
{
    /// <summary>They were, until they were thawed by us.</summary>
    Frozen,

    /// <summary>No agent answers in the guest, or the VM has no vsock.</summary>
    NoAgent,

    /// <summary>The agent did not freeze.</summary>
    Refused,

    /// <summary>It took too long, or they were thawed too early.</summary>
    TooLate,
}

/// <summary>What became of the wish to freeze a guest's file systems.</summary>
/// <param name="State">Whether they were frozen.</param>
/// <param name="FileSystems">How many.</param>
/// <param name="Left">How many on disks of the guest cannot be frozen.</param>
/// <param name="Why">Why they were not; null when they were.</param>
public sealed record GuestQuiesce(QuiesceState State, int FileSystems = 0, int Left = 0, string? Why = null)
{
    /// <summary>In words, for events and tables.</summary>
    public string Describe() => State != QuiesceState.Frozen ? "not quiesced: " + Why
        : string.Create(CultureInfo.InvariantCulture, $"quiesced: {FileSystems} file system{(FileSystems == 1 ? "" : "s")}")
            + (Left > 0 ? string.Create(CultureInfo.InvariantCulture, $" ({Left} cannot be frozen)") : "");
}
