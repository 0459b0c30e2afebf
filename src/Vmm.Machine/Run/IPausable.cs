namespace Vmm.Machine.Run;

/// <summary>A machine that is paused by somebody who lets it go on later; anybody else may end that pause, or take it over.</summary>
internal interface IPausable
{
    /// <summary>Pauses it.</summary>
    /// <returns>False: it does not run.</returns>
    bool TryPause(object owner);

    /// <summary>It is paused since <paramref name="owner"/> did that, and nobody took the pause over.</summary>
    bool IsPausedBy(object owner);

    /// <summary>Lets it go on, when it is paused by <paramref name="owner"/>.</summary>
    bool TryResume(object owner);
}
