using Vmm.Contracts.Control;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Machine.Numa;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Memory;
using Vmm.Memory.Paging;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Worker;

/// <summary>What the VM of this worker tells of itself: counters, and where its vnodes are.</summary>
/// <param name="machine">The machine.</param>
/// <param name="rehoming">Moves its vnodes.</param>
/// <param name="paging">Its pager.</param>
internal sealed class HostedReport(VirtualMachine machine, Rehoming rehoming, HostedPaging paging)
{
    /// <summary>Where the vnodes are meant to be.</summary>
    internal WorkerNuma Numa
    {
        get
        {
            IReadOnlyList<HomedThread> threads = machine.HomedThreads;
            List<VnodeHomeInfo> vnodes = [];
            foreach (VnodeHome home in machine.Homes)
            {
                VnodePlacement memory = home.Memory;
                string policy = memory.Policy switch
                {
                    MemoryPolicyMode.Bind => "strict",
                    MemoryPolicyMode.Preferred => "preferred",
                    MemoryPolicyMode.Interleave => "interleave",
                    _ => "auto",
                };
                List<HomedThreadInfo> own = [.. threads.Where(t => t.Vnode == memory.Vnode).Select(t => new HomedThreadInfo(t.Name, t.Id))];
                vnodes.Add(new VnodeHomeInfo(memory.Vnode, memory.HostNodes, policy, memory.PageSize, home.HostCpus, own));
            }

            return new WorkerNuma(vnodes, rehoming.Status, machine.Fit is { } fit ? Info(fit) : null);
        }
    }

    /// <summary>Everything of the machine that has state, and what happens to it.</summary>
    internal UnitList Units
    {
        get
        {
            MachineUnitsView now = machine.Units.Now;
            return new UnitList(
                [.. now.Units.Select(unit => new UnitInfo(
                    unit.Unit.ToString(),
                    Names.Of(unit.Phase),
                    unit.Text,
                    now.Moved ? (long)unit.Since.TotalMilliseconds : null))],
                now.Operation);
        }
    }

    private static NumaFitInfo Info(NumaFitResult fit) =>
        new(
            [.. fit.Vnodes.Select(v => new VnodeFitInfo(v.Vnode, Names.Of(v.Outcome), NumberSet.Format(v.Wanted),
                [.. v.Shares.Select(s => new NodeBytes(s.Node, s.Bytes))], v.Text))],
            fit.Distances.Percent, fit.Distances.Text);

    /// <summary>How far a lazy restore is.</summary>
    internal static MemoryRestoreInfo Info(RestoreProgress progress) =>
        new(progress.TotalBytes, progress.LeftBytes, progress.AwaitedBytes, (long)progress.Took.TotalMilliseconds);

    /// <summary>Counters now.</summary>
    /// <param name="residentBytes">Memory of this process.</param>
    internal WorkerStats Stats(long residentBytes)
    {
        MachineCounters counters = machine.Counters;
        DiskStats[] disks = new DiskStats[counters.Disks.Count];
        for (int i = 0; i < disks.Length; i++)
        {
            (string name, BlkCounters disk) = counters.Disks[i];
            disks[i] = new DiskStats(
                name, disk.Reads, disk.ReadBytes, disk.Writes, disk.WrittenBytes, disk.Flushes, disk.Errors, disk.InFlight, disk.Held,
                Latency(disk.Wait), Latency(disk.Storage));
        }

        return new WorkerStats(
            (long)Environment.CpuUsage.TotalTime.TotalMilliseconds, residentBytes, counters.Exits, disks, Nets(counters.Nets),
            Paging: paging.Info,
            Shares: counters.Shares.Count == 0 ? null
                : [.. counters.Shares.Select(s => new ShareStats(s.Name, s.Requests, s.Losses, s.IsConnected))],
            Restore: machine.MemoryRestore is { IsOver: false } restore ? Info(restore.Progress) : null);
    }

    private static LatencyStats Latency(DiskLatency stage) => new(stage.Counts, stage.Microseconds);

    private static NetStats[] Nets(IReadOnlyList<NetDeviceCounters> counters)
    {
        NetStats[] nets = new NetStats[counters.Count];
        for (int i = 0; i < nets.Length; i++)
        {
            (string name, Vmm.Devices.Virtio.Net.NetCounters net, string? kernelTap) = counters[i];
            nets[i] = new NetStats(name, net.ReceivedPackets, net.ReceivedBytes, net.SentPackets, net.SentBytes, net.Dropped, kernelTap);
        }

        return nets;
    }
}
