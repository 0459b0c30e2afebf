namespace Vmm.Devices.Virtio;

/// <summary>How much a device may move. Zero is no limit of that kind.</summary>
/// <param name="BytesPerSecond">Bytes a second, in the long run.</param>
/// <param name="OperationsPerSecond">Requests or frames a second, in the long run.</param>
/// <param name="BurstBytes">Bytes that may go at once after a pause; 0: a tenth of a second's, at least 128 KiB.</param>
/// <param name="BurstOperations">Operations that may go at once after a pause; 0: a tenth of a second's, at least one.</param>
public sealed record RateLimit(ulong BytesPerSecond, ulong OperationsPerSecond, ulong BurstBytes = 0, ulong BurstOperations = 0)
{
    /// <summary>Greatest value of each number: an exbibyte a second.</summary>
    public const ulong Most = 1UL << 60;

    /// <summary>Nothing is limited.</summary>
    public bool IsNone => BytesPerSecond == 0 && OperationsPerSecond == 0;

    /// <summary>Every number is at most <see cref="Most"/>.</summary>
    public bool IsValid => BytesPerSecond <= Most && OperationsPerSecond <= Most && BurstBytes <= Most && BurstOperations <= Most;
}

/// <summary>
/// A token bucket: fills at a constant rate up to its capacity. Time is in nanoseconds of any clock that does not go back.
/// </summary>
internal struct TokenBucket
{
    private const ulong Second = 1_000_000_000;
    private readonly ulong _rate, _capacity;
    private Int128 _level;      // tokens, below zero when more was charged than there was
    private ulong _remainder;   // of a token, in 1/Second
    private long _last;

    /// <summary>Full at <paramref name="now"/>.</summary>
    public TokenBucket(ulong rate, ulong capacity, long now)
    {
        _rate = rate;
        _capacity = capacity;
        _level = capacity;
        _last = now;
    }

    /// <summary>
    /// What must be there for <paramref name="amount"/>: no more than a full bucket, so that an oversized request passes too, and is paid
    /// afterwards.
    /// </summary>
    public readonly ulong Needed(ulong amount) => Math.Min(amount, _capacity);

    public void Refill(long now)
    {
        if (now <= _last)
        {
            return;
        }

        UInt128 earned = ((UInt128)_rate * (ulong)(now - _last)) + _remainder;
        _last = now;
        _level += (Int128)(earned / Second);
        _remainder = (ulong)(earned % Second);
        if (_level >= _capacity)
        {
            _level = _capacity;
            _remainder = 0;
        }
    }

    public readonly bool Has(ulong amount) => _level >= Needed(amount);

    public void Charge(ulong amount) => _level -= amount;

    /// <summary>Nanoseconds until <see cref="Has"/> is true of the amount.</summary>
    public readonly ulong WaitFor(ulong amount)
    {
        if (Has(amount))
        {
            return 0;
        }

        UInt128 missing = ((UInt128)(Needed(amount) - _level) * Second) - _remainder;
        UInt128 wait = (missing + _rate - 1) / _rate;
        return wait > long.MaxValue ? long.MaxValue : (ulong)wait;
    }
}

/// <summary>
/// Two token buckets, bytes and operations: a request passes when both have enough. Shared by the I/O threads of a device; nothing
/// allocates, nobody sleeps in it. A changed limit is a new limiter. In any time t no more than burst + rate·t passes, except that a single
/// request larger than the burst passes when the bucket is full (and is paid for before the next), and that what is charged afterwards may
/// overdraw by one request.
/// </summary>
public sealed class RateLimiter
{
    // A thread that waits looks at the limit again after this, so that a changed one counts soon.
    private const int LongestWait = 50;
    private const ulong LeastBurst = 128 << 10;

    private readonly Lock _lock = new();
    private readonly bool _limitsBytes, _limitsOperations;
    private TokenBucket _bytes, _operations;

    private RateLimiter(RateLimit limit, long now)
    {
        Limit = limit;
        _limitsBytes = limit.BytesPerSecond > 0;
        _limitsOperations = limit.OperationsPerSecond > 0;
        _bytes = new TokenBucket(
            limit.BytesPerSecond, limit.BurstBytes > 0 ? limit.BurstBytes : Math.Max(limit.BytesPerSecond / 10, LeastBurst), now);
        _operations = new TokenBucket(
            limit.OperationsPerSecond,
            limit.BurstOperations > 0 ? limit.BurstOperations : Math.Max(limit.OperationsPerSecond / 10, 1),
            now);
    }

    /// <summary>What it holds to.</summary>
    public RateLimit Limit { get; }

    /// <summary>The limiter of a limit, with full buckets; null when nothing is limited.</summary>
    /// <param name="limit">The limit; null is none.</param>
    /// <param name="now">Nanoseconds, see <see cref="Now"/>.</param>
    /// <exception cref="ArgumentException">A number is above <see cref="RateLimit.Most"/>.</exception>
    public static RateLimiter? Create(RateLimit? limit, long now) =>
        limit is null || limit.IsNone ? null
        : limit.IsValid ? new RateLimiter(limit, now)
        : throw new ArgumentException("a rate or burst is above 2^60", nameof(limit));

    /// <summary>The clock, in nanoseconds.</summary>
    public static long Now => System.Diagnostics.Stopwatch.GetTimestamp() * (1_000_000_000 / System.Diagnostics.Stopwatch.Frequency);

    /// <summary>
    /// Takes one operation of so many bytes. False, and nothing taken, when it has to wait that many milliseconds (1 to 50) before the next
    /// try.
    /// </summary>
    public bool TryTake(ulong bytes, long now, out int wait)
    {
        lock (_lock)
        {
            if (!Passes(bytes, now, out wait))
            {
                return false;
            }

            Pay(bytes);
            return true;
        }
    }

    /// <summary>For an operation whose size is known only afterwards: whether one may go now; then <see cref="Charge"/>.</summary>
    public bool IsReady(long now, out int wait)
    {
        lock (_lock)
        {
            return Passes(1, now, out wait);
        }
    }

    /// <summary>Charges one operation that was done.</summary>
    public void Charge(ulong bytes)
    {
        lock (_lock)
        {
            Pay(bytes);
        }
    }

    private bool Passes(ulong bytes, long now, out int wait)
    {
        ulong nanoseconds = 0;
        if (_limitsBytes)
        {
            _bytes.Refill(now);
            nanoseconds = _bytes.WaitFor(bytes);
        }

        if (_limitsOperations)
        {
            _operations.Refill(now);
            nanoseconds = Math.Max(nanoseconds, _operations.WaitFor(1));
        }

        wait = (int)Math.Min((nanoseconds + 999_999) / 1_000_000, LongestWait);
        return nanoseconds == 0;
    }

    private void Pay(ulong bytes)
    {
        if (_limitsBytes)
        {
            _bytes.Charge(bytes);
        }

        if (_limitsOperations)
        {
            _operations.Charge(1);
        }
    }
}
