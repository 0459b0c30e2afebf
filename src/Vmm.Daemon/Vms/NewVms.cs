using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;

namespace Vmm.Daemon.Vms;

/// <summary>Records of VMs that come: those that are made, and those of other hosts that an earlier daemon was about to take in.</summary>
internal static class NewVms
{
    /// <summary>Stores a new VM. Its disks first, under another name: whatever dies, the inventory says what becomes of them.</summary>
    internal static VmRecord Store(VmTable inventory, VmRecord record, Func<VmFolderChange>? make)
    {
        using VmFolderChange? disks = make?.Invoke();
        inventory.Add(record);
        try
        {
            disks?.Complete();
            return record;
        }
        catch
        {
            inventory.Remove(record);
            throw;
        }
    }

    /// <summary>
    /// All VMs of this host. One that an earlier daemon was about to take in from another host is this one's when that was decided; when it
    /// was not, it is decided now that it is not, for good, and nothing of it stays: its worker is nobody's, and is ended.
    /// </summary>
    internal static IEnumerable<VmRecord> Settle(VmTable inventory, DecisionTable? decisions)
    {
        foreach (VmRecord record in inventory.All())
        {
            if (record.Move is not { Kind: MoveKind.Incoming } move)
            {
                yield return record;
                continue;
            }

            if (MigrationSteps.Found(decisions?.Find(move.Id)) == IncomingStep.Committed)
            {
                VmRecord taken = record with { Move = null, WantedOn = true };
                inventory.Update(taken);
                yield return taken;
                continue;
            }

            _ = decisions?.Decide(move.Id, Decision.Aborted);
            inventory.Remove(record);
        }
    }
}
