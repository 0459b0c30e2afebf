using Vmm.Contracts.Control;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Rest;

/// <summary>Something that happened in a daemon.</summary>
/// <param name="Id">Grows by one with each; starts anew with each daemon.</param>
/// <param name="At">When.</param>
/// <param name="Kind"><c>created</c>, <c>changed</c>, <c>deleted</c>, <c>state</c>, <c>ended</c>, <c>restart</c>, <c>worker-lost</c>,
/// <c>worker-back</c>, <c>memory</c>, <c>rehome</c>, <c>job</c>, <c>balanced</c>, <c>device-added</c>, <c>device-removed</c>,
/// <c>disk-resized</c>, <c>disk-copied</c>, <c>disk-error</c>, <c>disk-waits</c>, <c>disk-goes-on</c>, <c>disk-remark</c>,
/// <c>disk-file-gone</c>, <c>disk-file-short</c>, <c>disk-file-read-only</c>,
/// <c>net-remark</c>, <c>network-created</c>, <c>network-changed</c>, <c>network-deleted</c>, <c>network-failed</c>,
/// <c>network-restored</c>, <c>network-forwarding</c>,
/// <c>guest-quiesce</c>, <c>memory-restored</c>, <c>cpu-limits</c>, <c>log-level</c>.</param>
/// <param name="Vm">Name of the VM; empty for an event of something else.</param>
/// <param name="State">The state it is in now, where that is what happened.</param>
/// <param name="Exit">How it ended, where that is what happened.</param>
/// <param name="Message">For people.</param>
/// <param name="Job">The job, when that is what it is about.</param>
public sealed record DaemonEvent(
    long Id, DateTimeOffset At, string Kind, string Vm, VmState? State, WorkerExit? Exit, string? Message, JobInfo? Job = null);

/// <summary>What the daemon remembers about a VM, oldest first.</summary>
/// <param name="Events">The events.</param>
public sealed record EventList(IReadOnlyList<DaemonEvent> Events);
