using System.Buffers;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Placement;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Checks what a worker says, whatever it is asked: a guest may have taken it over. Numbers are in range, names are those that devices
/// have, nothing is there twice, lists and texts are bounded, texts are fit for a terminal. What the VM really has is checked by those who
/// know its spec.
/// </summary>
internal static class WorkerCheck
{
    /// <summary>Most devices, vnodes and host nodes that anything may speak of.</summary>
    internal const int MostDevices = 256, MostVnodes = 256, MostNodes = 1024;

    private const int MostThreads = 8192, MostUnits = 2048;

    private const int MostNotes = 64, LongestText = 1024, LongestPath = 4096, LongestCode = 64, MostBuckets = 64;

    private static readonly SearchValues<char> CodeLetters = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789-");

    /// <summary>The same, with texts that are fit for people.</summary>
    /// <exception cref="WorkerException"><c>bad-answer</c>: no sound worker says that.</exception>
    internal static T Checked<T>(T body) where T : class => (T)(object)(body switch
    {
        WorkerStats stats => Stats(stats),
        VmMemory memory => Memory(memory),
        WorkerNuma numa => Numa(numa),
        UnitList units => Units(units),
        DeviceList list => Devices(list),
        DeviceInfo device => Device(device),
        RemovalBody removal => Removal(removal),
        DiskCopyInfo copy => Copy(copy),
        HelloBody hello => Hello(hello),
        ConfinementBody confinement => Confinement(confinement),
        _ => body,
    });

    /// <summary>Whether a device can have that name: <c>disk0</c>, <c>net12</c>.</summary>
    internal static bool IsDeviceName(string name) => Kind(name) is "disk" or "net";

    /// <summary>Whether a disk can fail like that.</summary>
    internal static bool IsDiskError(DiskErrorBody fault) => Kind(fault.Disk) is "disk" && Enum.IsDefined(fault.Fault);

    /// <summary>The error of an answer, fit for people; its code is a word.</summary>
    internal static WorkerException Error(ControlError error) =>
        IsWord(error.Code)
            ? new WorkerException(error.Code, SafeText.Line(error.Message, LongestPath))
            : Bad("an error whose code is no word");

    private static bool IsWord(string code) =>
        code.Length is > 0 and <= LongestCode && code.AsSpan().IndexOfAnyExcept(CodeLetters) < 0;

    private static WorkerStats Stats(WorkerStats stats)
    {
        Require(stats.CpuMilliseconds >= 0 && stats.ResidentBytes >= 0 && stats.Exits >= 0, "a negative counter");
        foreach (DeviceStatsKind kind in DeviceStatsKind.All)
        {
            IReadOnlyList<DeviceCounters> devices = kind.Read(stats);
            Distinct(devices, device => device.Device, MostDevices);
            foreach (DeviceCounters device in devices)
            {
                Require(
                    string.Equals(Kind(device.Device), kind.Kind, StringComparison.Ordinal), "the counters of a device that cannot exist");
                Require(device.Counters.All(counter => counter.Value is null or >= 0), "a negative counter");
            }
        }

        foreach (LatencyStats? stage in stats.Disks.SelectMany(disk => (LatencyStats?[])[disk.Wait, disk.Storage]))
        {
            Require(
                stage is null || (stage is { Microseconds: >= 0, Counts.Count: <= MostBuckets } && stage.Counts.All(count => count >= 0)),
                "latencies that cannot be");
        }

        Require(stats.Restore is null || IsRestore(stats.Restore), "a restore of more memory than there can be");
        return stats with { Throttling = null, Paging = Paging(stats.Paging) }; // the daemon knows, a worker does not
    }

    /// <summary>Whether a restore can be so far.</summary>
    internal static bool IsRestore(MemoryRestoreInfo restore) =>
        restore.TotalBytes <= 1UL << 60 && restore.LeftBytes <= restore.TotalBytes && restore.AwaitedBytes <= 1UL << 60
        && restore.Milliseconds >= 0;

    private static DiskCopyInfo Copy(DiskCopyInfo copy)
    {
        Require(Enum.IsDefined(copy.State) && (copy.Device is null || Kind(copy.Device) is "disk"), "a copy that cannot exist");
        Require(copy.CopiedBytes <= copy.TotalBytes, "a copy of more than there is");
        return copy with { Problem = copy.Problem is { } problem ? SafeText.Line(problem, LongestText) : null };
    }

    /// <summary>A reason that a worker gives, fit for people.</summary>
    internal static string? Reason(string? said) => said is null ? null : SafeText.Line(said, LongestText);

    private static PagingInfo? Paging(PagingInfo? paging)
    {
        const ulong most = 1UL << 60;
        Require(paging is null or
        {
            LimitBytes: <= most, LeastBytes: <= most, ResidentBytes: <= most, StagedBytes: <= most, SwappedBytes: <= most,
            PinnedBytes: <= most, PinnedPeakBytes: <= most, SwapFileBytes: <= most
        }, "more resident memory than there can be");
        // The last two are the daemon's to say.
        return paging is null ? null : paging with
        {
            Stopped = Reason(paging.Stopped),
            Reason = Reason(paging.Reason),
            ConfiguredBytes = null,
            MinResidentBytes = null,
        };
    }

    private static VmMemory Memory(VmMemory memory)
    {
        Distinct(memory.Vnodes, vnode => vnode.Vnode, MostVnodes);
        foreach (VnodeMemoryInfo v in memory.Vnodes)
        {
            Require(v.Vnode is >= 0 and < MostVnodes, "a vnode with a number out of range");
            Require(v.LeastBytes <= v.MostBytes && v.MostBytes <= 1UL << 60 && v.AskedBytes <= v.MostBytes && v.PresentBytes <= v.MostBytes
                && v.StuckBytes <= v.MostBytes && v.BelowBytes <= v.MostBytes && v.HeldBackBytes <= v.MostBytes,
                    "a vnode with more memory than it can have");
            Require(v.BlockBytes is > 0 and <= 1UL << 40, "a vnode with blocks of an impossible size");
        }

        BalloonMemoryInfo? balloon = memory.Balloon is { } said ? said with { Reason = Reason(said.Reason) } : null;
        return memory with { Paging = Paging(memory.Paging), Balloon = balloon };
    }

    private static WorkerNuma Numa(WorkerNuma numa)
    {
        Distinct(numa.Vnodes, vnode => vnode.Vnode, MostVnodes);
        foreach (VnodeHomeInfo v in numa.Vnodes)
        {
            Require(v.Vnode is >= 0 and < MostVnodes, "a vnode with a number out of range");
            Nodes(v.HostNodes);
            Require(v.Policy is "strict" or "preferred" or "interleave" or "auto", "a policy that does not exist");
            Require(v.HostCpus.Count <= MostThreads && v.HostCpus.All(cpu => cpu is >= 0 and < 65536), "host CPUs out of range");
            Require(v.Threads.Count <= MostThreads && v.Threads.All(thread => thread.Id > 0), "threads out of range");
        }

        return numa with
        {
            Vnodes = [.. numa.Vnodes.Select(
                v => v with { Threads = [.. v.Threads.Select(t => t with { Name = SafeText.Line(t.Name, LongestCode) })] })],
            Rehome = numa.Rehome is { } rehome ? Rehome(rehome) : null,
            Fit = numa.Fit is { } fit ? Fit(fit) : null,
        };
    }

    private static RehomeStatus Rehome(RehomeStatus rehome)
    {
        Require(rehome.Vnode is >= 0 and < MostVnodes && Enum.IsDefined(rehome.State) && rehome.Progress is >= 0 and <= 1
            && rehome.Milliseconds >= 0,
            "a move of a vnode out of range");
        Nodes(rehome.HostNodes);
        Nodes([.. rehome.Left.Select(left => left.Node)]);
        return rehome with { Message = rehome.Message is { } message ? SafeText.Line(message, LongestText) : null };
    }

    private static NumaFitInfo Fit(NumaFitInfo fit)
    {
        Distinct(fit.Vnodes, vnode => vnode.Vnode, MostVnodes);
        Require(fit.DistancePercent is >= 0 and <= 100, "a percentage out of range");
        return fit with
        {
            Distances = SafeText.Line(fit.Distances, LongestText),
            Vnodes = [.. fit.Vnodes.Select(v => v with
            {
                Outcome = SafeText.Line(v.Outcome, LongestCode),
                Wanted = SafeText.Line(v.Wanted, LongestText),
                Text = SafeText.Line(v.Text, LongestText),
                Shares = [.. v.Shares.Take(MostNodes)],
            })],
        };
    }

    private static UnitList Units(UnitList list)
    {
        Distinct(list.Units, unit => unit.Name, MostUnits);
        Require(list.Units.All(unit => IsWord(unit.Phase) && unit.Name.Length is > 0 and <= LongestCode), "a unit that cannot exist");
        Require(list.Units.All(unit => unit.Milliseconds is null or >= 0), "a unit in the future");
        Require(list.Operation is null || IsWord(list.Operation), "an operation that cannot exist");
        return list with
        {
            Units = [.. list.Units.Select(unit => unit with
            {
                Name = SafeText.Line(unit.Name, LongestCode),
                Text = SafeText.Line(unit.Text, LongestText),
            })],
        };
    }

    private static DeviceList Devices(DeviceList list)
    {
        Distinct(list.Devices, device => device.Name, MostDevices);
        return new DeviceList([.. list.Devices.Select(Device)]);
    }

    private static DeviceInfo Device(DeviceInfo device)
    {
        Require(Kind(device.Name) is ("disk" or "net") and var kind && string.Equals(kind, device.Kind, StringComparison.Ordinal),
            "a device with a name that none has");
        Require(device.Slot is null or (>= 0 and < 65536) && device.Vnode is null or (>= 0 and < MostVnodes),
            "a device in a place out of range");
        Require(device.Waits is null || Enum.IsDefined(device.Waits.Value), "a device that waits for what there is not");
        return device with { Source = SafeText.Line(device.Source, LongestPath) };
    }

    private static RemovalBody Removal(RemovalBody removal)
    {
        Require(IsDeviceName(removal.Device) && Enum.IsDefined(removal.Outcome), "the removal of a device that cannot exist");
        return removal;
    }

    private static HelloBody Hello(HelloBody hello)
    {
        Require(hello.VmId is null or { Length: <= LongestCode }, "an id of a VM that is too long");
        return hello with
        {
            VmId = hello.VmId is { } id ? SafeText.Line(id) : null,
            Confinement = Confinement(hello.Confinement),
            Features = hello.Features is { } features
                ? [.. features.Take(MostNotes).Where(feature => feature.Length <= LongestCode)]
                : null,
        };
    }

    private static ConfinementBody Confinement(ConfinementBody body) => new(Notes(body.Applied), Notes(body.Missing));

    private static List<string> Notes(IReadOnlyList<string> notes) =>
        [.. notes.Take(MostNotes).Select(note => SafeText.Line(note, LongestText))];

    /// <summary>The kind whose name and a number make the name of a device; null: there is none.</summary>
    private static string? Kind(string name)
    {
        foreach (DeviceStatsKind kind in DeviceStatsKind.All)
        {
            if (name.StartsWith(kind.Kind, StringComparison.Ordinal)
                && name.AsSpan(kind.Kind.Length) is { Length: > 0 and <= 9 } digits
                && digits.IndexOfAnyExceptInRange('0', '9') < 0)
            {
                return kind.Kind;
            }
        }

        return null;
    }

    private static void Nodes(IReadOnlyList<int> nodes)
    {
        Distinct(nodes, node => node, MostNodes);
        Require(nodes.All(node => node is >= 0 and < MostNodes), "a host node out of range");
    }

    private static void Distinct<T, TKey>(IReadOnlyList<T> items, Func<T, TKey> key, int most)
    {
        Require(items.Count <= most, "more of a kind than there can be");
        HashSet<TKey> seen = [];
        Require(items.All(item => seen.Add(key(item))), "the same thing twice");
    }

    private static void Require(bool sound, string what)
    {
        if (!sound)
        {
            throw Bad(what);
        }
    }

    private static WorkerException Bad(string what) => new(ControlCodes.BadAnswer, $"the worker answered nonsense: {what}");
}
