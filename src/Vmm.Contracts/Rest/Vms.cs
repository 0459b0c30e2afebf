using Vmm.Contracts.Control;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Rest;

/// <summary>A VM as the daemon knows it.</summary>
/// <param name="Id">UUID, given at creation.</param>
/// <param name="Name">Unique on this host.</param>
/// <param name="State">Where it stands.</param>
/// <param name="Revision">Grows with every change of the spec; the ETag.</param>
/// <param name="Cpus">vCPUs.</param>
/// <param name="MemoryBytes">RAM, bytes.</param>
/// <param name="WorkerProcessId">The process that runs it; null while none does.</param>
/// <param name="LastExit">How its last run ended; null when it never ran.</param>
/// <param name="Restarts">How often the daemon started it again since somebody did.</param>
/// <param name="NextStart">When the daemon will start it again; null when it will not.</param>
/// <param name="Confinement">What keeps its worker in bounds, and what does not hold; null while there is no worker.</param>
/// <param name="CpuLimits">Its time on host CPUs: in force while it runs, else what its next start gives it; null when there is no
/// limit.</param>
/// <param name="SavedIn">The folder in which it is saved; null when it is not.</param>
/// <param name="WaitsFor">The disks for which it is paused, and what the host did to them; null when there are none.</param>
/// <param name="Addresses">Its addresses on private networks; null when it has none.</param>
/// <param name="Restoring">Its memory comes from the folder that it was restored from still; null when it does not.</param>
public sealed record VmInfo(string Id, string Name, VmState State, long Revision, int Cpus, ulong MemoryBytes, int? WorkerProcessId,
    WorkerExit? LastExit, int Restarts = 0, DateTimeOffset? NextStart = null,
    ConfinementBody? Confinement = null, CpuLimits? CpuLimits = null, string? SavedIn = null,
    string? WaitsFor = null, IReadOnlyList<string>? Addresses = null, bool? Restoring = null);

/// <summary>Where a VM is to be saved, or is saved.</summary>
/// <param name="Folder">A folder in a storage folder of the host, the whole path.</param>
public sealed record SavedFolderRequest(string Folder);

/// <summary>How a VM is to go on that is saved.</summary>
/// <param name="Folder">The folder in which it is saved, the whole path.</param>
/// <param name="Lazy">True: it runs at once, and its memory comes from the folder when it is used.</param>
public sealed record RestoreRequest(string Folder, bool? Lazy = null);

/// <summary>A list of VMs, by name.</summary>
/// <param name="Vms">The VMs.</param>
public sealed record VmList(IReadOnlyList<VmInfo> Vms);

/// <summary>What the daemon is and where it runs.</summary>
/// <param name="Version">The daemon's version.</param>
/// <param name="Kvm"><c>hardware</c>, <c>emulating</c> or <c>none</c>.</param>
/// <param name="Nodes">The host's NUMA nodes.</param>
/// <param name="CpuModels">CPU models that this host can run; null from a daemon that does not tell.</param>
public sealed record HostInfo(string Version, string Kvm, IReadOnlyList<HostNodeInfo> Nodes, IReadOnlyList<string>? CpuModels = null);

/// <summary>One NUMA node of the host.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Cpus">Its CPUs in list form, <c>0-3,8</c>.</param>
/// <param name="TotalBytes">RAM, bytes.</param>
/// <param name="FreeBytes">Free RAM, bytes.</param>
public sealed record HostNodeInfo(int Id, string Cpus, ulong TotalBytes, ulong FreeBytes);
