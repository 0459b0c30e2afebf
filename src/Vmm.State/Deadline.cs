namespace Vmm.State;

/// <summary>
/// The end of the time that one operation has. Every wait inside takes its share of what remains; none has a time of its own.
/// </summary>
public sealed class Deadline : IDisposable
{
    private readonly CancellationTokenSource _over;
    private readonly long _end;

    /// <param name="time">How long the operation may take.</param>
    /// <param name="cancel">Ends it earlier.</param>
    public Deadline(TimeSpan time, CancellationToken cancel = default)
    {
        Time = time;
        _end = TimeProvider.System.GetTimestamp() + (long)(time.TotalSeconds * TimeProvider.System.TimestampFrequency);
        _over = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        _over.CancelAfter(time);
    }

    /// <summary>The whole of it.</summary>
    public TimeSpan Time { get; }

    /// <summary>What is left; zero when it is over.</summary>
    public TimeSpan Remaining
    {
        get
        {
            long left = _over.IsCancellationRequested ? 0 : _end - TimeProvider.System.GetTimestamp();
            return left <= 0 ? TimeSpan.Zero : TimeSpan.FromSeconds((double)left / TimeProvider.System.TimestampFrequency);
        }
    }

    /// <summary>Set when it is over or the operation was cancelled.</summary>
    public CancellationToken Token => _over.Token;

    /// <inheritdoc/>
    public void Dispose() => _over.Dispose();
}
