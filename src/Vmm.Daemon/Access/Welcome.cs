namespace Vmm.Daemon.Access;

/// <summary>
/// How long an answer that has no end may go on: until the client leaves, the time of its token or certificate is over, or its token or
/// certificate is revoked; for a request is only checked when it begins. At most 40 days, which a timer can do; the client comes back.
/// </summary>
internal sealed class Welcome : IDisposable
{
    private static readonly TimeSpan s_most = TimeSpan.FromDays(40);

    /// <summary>
    /// A timer may go off some milliseconds before its time; who is told that a token has expired must not find it good when asking again.
    /// </summary>
    private static readonly TimeSpan s_slack = TimeSpan.FromMilliseconds(50);

    private readonly Principal _who;
    private readonly CancellationToken _revoked;
    private readonly CancellationTokenSource _source;

    internal Welcome(Principal who, CancellationToken gone)
    {
        _who = who;
        _revoked = who.Watch?.Invoke() ?? CancellationToken.None;
        _source = CancellationTokenSource.CreateLinkedTokenSource(gone, _revoked);
        if (who.Expires is { } expires)
        {
            TimeSpan left = expires - DateTimeOffset.UtcNow + s_slack;
            _source.CancelAfter(left <= TimeSpan.Zero ? TimeSpan.Zero : left < s_most ? left : s_most);
        }
    }

    /// <summary>Cancelled when it is over.</summary>
    internal CancellationToken Over => _source.Token;

    /// <summary>Why it is over, for the client.</summary>
    internal string Reason => $"the {_who.Name[.._who.Name.IndexOf(':', StringComparison.Ordinal)]} "
        + $"{(_revoked.IsCancellationRequested ? "was revoked" : "has expired")}";

    public void Dispose() => _source.Dispose();
}
