using Vmm.Daemon.Vms;
using Vmm.Spec;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>Which VMs stand on which points: those that failovers made, and those whose owner put a disk over one.</summary>
/// <param name="vms">The VMs of this host.</param>
internal sealed class PointUsers(VmManager vms)
{
    /// <summary>VMs by the number of the point.</summary>
    /// <param name="replica">Whose points.</param>
    internal IReadOnlyDictionary<int, SortedSet<string>> Of(Replica replica)
    {
        Dictionary<int, SortedSet<string>> users = [];
        Dictionary<string, int> images = new(StringComparer.Ordinal);
        foreach (ArrangedPoint point in replica.Points.Points)
        {
            users[point.Number] = new SortedSet<string>(StringComparer.Ordinal);
            foreach (SealedDisk disk in point.Point.Disks)
            {
                images[replica.Points.ImageOf(point, disk.Name)] = point.Number;
            }
        }

        SiteRecord record = replica.Record;
        if (record.Failover is { } failover && users.TryGetValue(failover.Point, out SortedSet<string>? over)
            && (failover.Step == FailoverStep.Making || vms.All.Any(vm => Is(vm, record.Vm))))
        {
            _ = over.Add(failover.Vm);
        }

        foreach (TestRecord test in record.Tests.Where(IsThere))
        {
            _ = users.GetValueOrDefault(test.Point)?.Add(test.Vm);
        }

        foreach (ManagedVm vm in vms.All)
        {
            foreach (DiskSpec disk in (vm.Spec?.Disks ?? []).Where(disk => !disk.IsRemote))
            {
                // The first of its chain: those below are what that point stands on.
                int number = vm.DiskFiles.ChainOf(disk).Select(file => images.GetValueOrDefault(file)).FirstOrDefault(found => found > 0);
                if (number > 0)
                {
                    _ = users[number].Add(vm.Record.Name);
                }
            }
        }

        return users;
    }

    /// <summary>All VMs that stand on a replica.</summary>
    internal IReadOnlyList<string> AllOf(Replica replica) =>
        replica.Damage is null ? [.. Of(replica).Values.SelectMany(each => each).Distinct(StringComparer.Ordinal)] : [];

    /// <summary>Whether the VM of a test is there, or about to be made.</summary>
    internal bool IsThere(TestRecord test) => Making.ContainsKey(test.VmId) || vms.All.Any(vm => Is(vm, test.VmId));

    /// <summary>Ids of VMs that are about to be made.</summary>
    internal System.Collections.Concurrent.ConcurrentDictionary<string, bool> Making { get; } = new(StringComparer.Ordinal);

    private static bool Is(ManagedVm vm, string id) => string.Equals(vm.Record.Id, id, StringComparison.Ordinal);
}
