namespace Vmm.Daemon.Replicas.Sending;

/// <summary>Holds sending to a rate. For one sender.</summary>
/// <param name="time">The clock.</param>
internal sealed class SendPace(TimeProvider time)
{
    private const int Least = 64 << 10, Most = 4 << 20;

    private long _due = time.GetTimestamp();

    /// <summary>Bytes of a request: what a rate sends in a quarter of a second, 64 KiB to 4 MiB.</summary>
    /// <param name="bytesPerSecond">The rate; null is without a limit.</param>
    internal static int Request(ulong? bytesPerSecond) =>
        bytesPerSecond is { } rate ? (int)Math.Clamp(rate / 4, Least, Most) : Most;

    /// <summary>Waits as long as bytes that were sent take at a rate.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="bytesPerSecond">The rate; null is without a limit.</param>
    /// <param name="cancellation">Gives up.</param>
    internal async Task AfterAsync(int bytes, ulong? bytesPerSecond, CancellationToken cancellation)
    {
        long now = time.GetTimestamp();
        _due = Math.Max(_due, now);
        if (bytesPerSecond is { } rate)
        {
            _due += (long)(bytes / (double)Math.Max(1, rate) * time.TimestampFrequency);
            TimeSpan wait = time.GetElapsedTime(now, _due);
            if (wait > TimeSpan.Zero)
            {
                await Task.Delay(wait, time, cancellation).ConfigureAwait(false);
            }
        }
    }
}
