namespace Vmm.Contracts.Control;

/// <summary>Rate limits of one device; what is null is not limited. All null is no limit.</summary>
/// <param name="BytesPerSecond">Bytes a second: reads and writes of a disk together, each direction of a network device.</param>
/// <param name="OperationsPerSecond">Requests or frames a second.</param>
/// <param name="BurstBytes">Bytes that may go at once after a pause; null: a tenth of a second's, at least 128 KiB.</param>
/// <param name="BurstOperations">Requests or frames that may go at once after a pause; null: a tenth of a second's.</param>
public sealed record DeviceLimits(
    ulong? BytesPerSecond = null, ulong? OperationsPerSecond = null, ulong? BurstBytes = null, ulong? BurstOperations = null);

/// <summary>A change of the limits of a running VM's device.</summary>
/// <param name="Device"><c>disk0</c>, <c>net1</c>, …</param>
/// <param name="Limits">The new limits; the old ones are over.</param>
public sealed record LimitsBody(string Device, DeviceLimits Limits);
