namespace Vmm.Storage.Qcow2.Tools;

/// <summary>How far an offline tool is, and whether it shall go on. For one thread.</summary>
/// <param name="report">Gets the done part, 0 to 1, at most a thousand times for each stage; may be null.</param>
/// <param name="cancellation">Ends the tool between two steps; what it leaves is as safe as after a crash.</param>
public sealed class ToolProgress(Action<double>? report = null, CancellationToken cancellation = default)
{
    private ulong _total, _done, _next;

    /// <summary>One that reports to nobody and is never cancelled.</summary>
    public static ToolProgress None => new();

    /// <summary>A stage of so many steps, of any size, begins.</summary>
    internal void Begin(ulong total)
    {
        (_total, _done, _next) = (total, 0, 0);
        Advance(0);
    }

    /// <summary>So many more steps are done.</summary>
    /// <exception cref="OperationCanceledException">The caller gave up.</exception>
    internal void Advance(ulong steps)
    {
        cancellation.ThrowIfCancellationRequested();
        _done += steps;
        if (report is not null && _done >= _next)
        {
            _next = _done + (_total / 1000) + 1;
            report(_total == 0 ? 1 : Math.Min(1, (double)_done / _total));
        }
    }
}
