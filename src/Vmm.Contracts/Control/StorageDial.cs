namespace Vmm.Contracts.Control;

/// <summary>
/// A disk lost the connection to its server, or a user-mode network its passt, and the worker may not connect to anything.
/// </summary>
/// <param name="Dial">Number of the wish.</param>
/// <param name="Disk">The disk's URI, as in the spec of the VM: an address that is not there is never connected to. <c>user:passt</c>: the
/// network. A daemon that knows no such disk refuses that.</param>
public sealed record StorageDial(long Dial, string Disk);

/// <summary>What became of it; with the descriptor <c>socket</c> when it is connected.</summary>
/// <param name="Dial">Number of the wish.</param>
/// <param name="Problem">Why it is not; null when it is.</param>
public sealed record StorageDialed(long Dial, string? Problem);
