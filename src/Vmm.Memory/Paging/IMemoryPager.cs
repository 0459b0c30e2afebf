namespace Vmm.Memory.Paging;

/// <summary>Keeps a machine's memory below a resident limit. Any thread.</summary>
public interface IMemoryPager
{
    /// <summary>Most guest memory that is resident.</summary>
    ByteSize ResidentLimit { get; }

    /// <summary>Least that it can be: below it, the guest would not get on.</summary>
    ByteSize MinimumLimit { get; }

    /// <summary>Changes the limit; pages go out, or may stay, from now on.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is below <see cref="MinimumLimit"/>.</exception>
    void SetResidentLimit(ByteSize limit);

    /// <summary>Where pages are, and what was done.</summary>
    PagerStatistics Statistics { get; }
}
