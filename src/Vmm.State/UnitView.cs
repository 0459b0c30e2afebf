namespace Vmm.State;

/// <summary>What happens to a unit.</summary>
public enum UnitPhase
{
    /// <summary>It works.</summary>
    Running,

    /// <summary>It comes to rest.</summary>
    Quiescing,

    /// <summary>It is at rest.</summary>
    Quiescent,

    /// <summary>It writes its state.</summary>
    Saving,

    /// <summary>It takes a state.</summary>
    Restoring,

    /// <summary>It begins to work.</summary>
    Resuming,

    /// <summary>The last operation failed here.</summary>
    Failed,
}

/// <summary>A unit at this moment.</summary>
/// <param name="Unit">Its name.</param>
/// <param name="Phase">What happens to it.</param>
/// <param name="Since">How long already.</param>
/// <param name="Text">What it says of itself.</param>
public readonly record struct UnitView(PartId Unit, UnitPhase Phase, TimeSpan Since, string Text);
