namespace Vmm.State;

/// <summary>A registered unit and what happens to it.</summary>
internal sealed class UnitEntry(IMachinePart part)
{
    private readonly Lock _gate = new();
    private UnitPhase _phase;
    private long _since = TimeProvider.System.GetTimestamp();

    internal IMachinePart Part => part;

    internal UnitPhase Phase
    {
        get
        {
            lock (_gate)
            {
                return _phase;
            }
        }
        set
        {
            lock (_gate)
            {
                (_phase, _since) = (value, TimeProvider.System.GetTimestamp());
            }
        }
    }

    /// <summary>Never throws: it is asked when something is wrong already.</summary>
    internal UnitView View()
    {
        UnitPhase phase;
        long since;
        lock (_gate)
        {
            (phase, since) = (_phase, _since);
        }

        string text;
        try
        {
            text = part.Describe();
        }
#pragma warning disable CA1031 // a unit that cannot describe itself must not hide the others
        catch (Exception cause)
#pragma warning restore CA1031
        {
            text = $"cannot describe itself: {cause.Message}";
        }

        return new UnitView(part.Id, phase, TimeProvider.System.GetElapsedTime(since), text);
    }
}
