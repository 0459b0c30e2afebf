namespace Vmm.Daemon.Pressure;

/// <summary>How the pressure loop was told to run.</summary>
/// <param name="Enabled">It takes memory from VMs when the host is short; null: when there is an overcommit ratio.</param>
/// <param name="Reserve">Bytes of the host that stay available; null: <see cref="PressureRules.ReserveShare"/> of it, at least
/// <see cref="PressureRules.LeastReserve"/>.</param>
internal sealed record PressureOptions(bool? Enabled = null, ulong? Reserve = null)
{
    /// <summary>How often it looks.</summary>
    internal TimeSpan Interval { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Numbers of the policy.</summary>
    internal PressureRules Rules { get; init; } = new();
}
