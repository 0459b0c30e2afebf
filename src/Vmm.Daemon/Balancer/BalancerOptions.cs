namespace Vmm.Daemon.Balancer;

/// <summary>How the balancer was told to run.</summary>
/// <param name="Enabled">It looks at the VMs.</param>
/// <param name="DryRun">It only says what it would do.</param>
/// <param name="Interval">How often.</param>
public sealed record BalancerOptions(bool Enabled, bool DryRun, TimeSpan Interval)
{
    /// <summary>Off.</summary>
    public static BalancerOptions Off { get; } = new(Enabled: false, DryRun: false, TimeSpan.FromSeconds(10));
}
