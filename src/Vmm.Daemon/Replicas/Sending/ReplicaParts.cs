using Microsoft.Extensions.Logging;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>What the replication of every VM of this host uses.</summary>
/// <param name="Table">Keeps settings.</param>
/// <param name="Connect">Finds a recovery site; nothing is sent yet. An address that is none is an <see cref="ApiException"/>.</param>
/// <param name="FolderOf">The folder of a VM's spool and hashes, by its name.</param>
/// <param name="Variables">The firmware's variables of a VM, by its id; null when it has none.</param>
/// <param name="Events">Who listens hears of what happens.</param>
/// <param name="Log">The log.</param>
/// <param name="Time">The clock.</param>
/// <param name="Slots">What may be sent at once.</param>
/// <param name="Source">What this host calls itself to others.</param>
internal sealed record ReplicaParts(
    ReplicaTable Table, Func<string, IReplicaPeer> Connect, Func<string, string> FolderOf, Func<string, byte[]?> Variables,
    EventHub Events, ILogger Log, TimeProvider Time, SemaphoreSlim Slots, string Source);
