using Vmm.Cpu;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>Turns the checked values of a spec file into the records; what is missing keeps its default.</summary>
internal static class SpecMapper
{
    internal static VmSpec Map(Dictionary<string, object> root, string? folder)
    {
        VmSpec defaults = new();
        NumaSpec? numa = Get<Dictionary<string, object>?>(root, "numa", null) is { } map ? MapNuma(map) : null;
        Dictionary<string, object> boot = Get<Dictionary<string, object>>(root, "boot", []);
        return new VmSpec
        {
            Name = Get(root, "name", defaults.Name),
            Cpus = Get(root, "cpus", CpusOf(numa) ?? defaults.Cpus),
            Cpu = Get<Dictionary<string, object>?>(root, "cpu", null) is { } cpu ? MapCpu(cpu) : null,
            CpuQuota = Get<int?>(root, "cpuQuota", null),
            CpuWeight = Get<int?>(root, "cpuWeight", null),
            Topology = Get<Dictionary<string, object>?>(root, "topology", null) is { } topology ? MapTopology(topology) : null,
            Memory = Get(root, "memory", MemoryOf(numa) ?? defaults.Memory),
            MinMemory = Get<ByteSize?>(root, "minMemory", null),
            MaxMemory = Get<ByteSize?>(root, "maxMemory", null),
            Boot = new BootSpec
            {
                Kernel = Resolve(folder, Get(boot, "kernel", "")),
                Initrd = Get<string?>(boot, "initrd", null) is { } initrd ? Resolve(folder, initrd) : null,
                Cmdline = Get(boot, "cmdline", BootSpec.DefaultCmdlineFor(Word(root, "console", ConsoleKind.Serial))),
            },
            Numa = numa,
            Disks = [.. Objects(root, "disks").Select(d => MapDisk(d, folder))],
            Nets = [.. Objects(root, "nets").Select(MapNet)],
            Rng = Get(root, "rng", defaults.Rng),
            Balance = Get<Dictionary<string, object>?>(root, "balance", null) is { } balance ? new BalanceSpec { Weight = Get(balance, "weight", 100), MinMemory = Get<ByteSize?>(balance, "minMemory", null) } : null,
            Balloon = Get<Dictionary<string, object>?>(root, "balloon", null) is { } balloon ? MapBalloon(balloon) : null,
            Vsock = Get<Dictionary<string, object>?>(root, "vsock", null) is { } vsock ? MapVsock(vsock, folder) : null,
            Console = Word(root, "console", defaults.Console),
            PvPanic = Get(root, "pvpanic", defaults.PvPanic),
            GenerationId = Get<string?>(root, "generationId", null),
            Restart = Word(root, "restart", defaults.Restart),
            OnCrash = Word(root, "onCrash", defaults.OnCrash),
            OnReboot = Word(root, "onReboot", defaults.OnReboot),
            Autostart = Get(root, "autostart", defaults.Autostart),
            VirtioTransport = Word(root, "virtioTransport", defaults.VirtioTransport),
            Serial = Get(root, "serial", defaults.Serial),
            DebugExit = Get(root, "debugExit", defaults.DebugExit),
        };
    }

    private static NumaSpec MapNuma(Dictionary<string, object> map) => new()
    {
        Auto = !map.ContainsKey("vnodes"),
        Fit = Word(map, "fit", FitWish.Exact),
        Count = map.TryGetValue("count", out object? count) ? (int)count : null,
        Vnodes = [.. Objects(map, "vnodes").Select(MapVnode)],
        Distances = Matrix(map, "distances"),
        Latencies = Matrix(map, "latencies"),
        Bandwidths = Matrix(map, "bandwidths"),
    };

    private static IReadOnlyList<int>[]? Matrix(Dictionary<string, object> map, string name) => map.ContainsKey(name)
        ? [.. Get<List<object>>(map, name, []).Cast<List<object>>().Select(row => (IReadOnlyList<int>)[.. row.Cast<int>()])]
        : null;

    private static CpuSpec MapCpu(Dictionary<string, object> map) => new()
    {
        Model = Get(map, "model", CpuModel.Host),
        Features = [.. Get<List<object>>(map, "features", []).Cast<string>()],
    };

    private static TopologySpec MapTopology(Dictionary<string, object> map) => new()
    {
        Sockets = Get<int?>(map, "sockets", null),
        Dies = Get(map, "dies", 1),
        Cores = Get<int?>(map, "cores", null),
        Threads = Get(map, "threads", 1),
    };

    private static VnodeSpec MapVnode(Dictionary<string, object> map)
    {
        IReadOnlyList<int> hostNodes = Get<IReadOnlyList<int>>(map, "hostNodes", []);
        return new VnodeSpec
        {
            Cpus = Get<IReadOnlyList<int>>(map, "cpus", []),
            Memory = Get(map, "memory", ByteSize.Zero),
            MinMemory = Get<ByteSize?>(map, "minMemory", null),
            MaxMemory = Get<ByteSize?>(map, "maxMemory", null),
            HostNodes = hostNodes,
            Policy = Policy(map, hostNodes.Count > 0 ? VnodePolicy.Strict : VnodePolicy.Auto),
            PageSize = Get(map, "pageSize", new ByteSize(ByteSize.BytesPerPage)),
        };
    }

    internal static DiskSpec MapDisk(Dictionary<string, object> map, string? folder)
    {
        DiskSpec defaults = new();
        return new DiskSpec
        {
            Path = Resolve(folder, Get(map, "path", "")),
            ReadOnly = Get(map, "readOnly", defaults.ReadOnly),
            Serial = Get<string?>(map, "serial", null),
            Queues = Get(map, "queues", defaults.Queues),
            QueueSize = Get(map, "queueSize", defaults.QueueSize),
            Cache = Word(map, "cache", defaults.Cache),
            Transport = map.ContainsKey("transport") ? Word(map, "transport", VirtioTransport.Pci) : null,
            Limits = MapLimits(map),
            Vnode = Get<int?>(map, "vnode", null),
        };
    }

    internal static NetSpec MapNet(Dictionary<string, object> map) => new()
    {
        Tap = Get(map, "tap", ""),
        Mac = Get<string?>(map, "mac", null),
        Queues = Get(map, "queues", 1),
        Mtu = Get<int?>(map, "mtu", null),
        Vhost = Word(map, "vhost", VhostUse.Auto),
        Transport = map.ContainsKey("transport") ? Word(map, "transport", VirtioTransport.Pci) : null,
        Limits = MapLimits(map),
        Vnode = Get<int?>(map, "vnode", null),
    };

    private static LimitsSpec? MapLimits(Dictionary<string, object> map) => Get<Dictionary<string, object>?>(map, "limits", null) is not { } limits ? null : new LimitsSpec
    {
        Bandwidth = Get<ByteSize?>(limits, "bandwidth", null),
        Operations = Get<int?>(limits, "operations", null),
        Burst = Get<ByteSize?>(limits, "burst", null),
        OperationsBurst = Get<int?>(limits, "operationsBurst", null),
    };

    private static BalloonSpec MapBalloon(Dictionary<string, object> map)
    {
        BalloonSpec defaults = new();
        return new BalloonSpec
        {
            Target = Get(map, "target", defaults.Target),
            DeflateOnOom = Get(map, "deflateOnOom", defaults.DeflateOnOom),
            FreePageReporting = Get(map, "freePageReporting", defaults.FreePageReporting),
            StatsInterval = Get(map, "statsInterval", defaults.StatsInterval),
        };
    }

    private static VsockSpec MapVsock(Dictionary<string, object> map, string? folder) =>
        new() { Cid = Get(map, "cid", 3), Path = Resolve(folder, Get(map, "path", "")) };

    private static int? CpusOf(NumaSpec? numa)
    {
        int[] cpus = numa is null ? [] : [.. numa.Vnodes.SelectMany(v => v.Cpus)];
        return cpus.Length > 0 ? cpus.Max() + 1 : null;
    }

    private static ByteSize? MemoryOf(NumaSpec? numa)
    {
        UInt128 total = 0;
        foreach (VnodeSpec vnode in numa?.Vnodes ?? [])
        {
            total += vnode.Memory.Bytes;
        }

        return numa is null || numa.Vnodes.Count == 0 ? null : new ByteSize(total > ulong.MaxValue ? ulong.MaxValue : (ulong)total);
    }

    private static IEnumerable<Dictionary<string, object>> Objects(Dictionary<string, object> map, string name) =>
        Get<List<object>>(map, name, []).Cast<Dictionary<string, object>>();

    private static T Get<T>(Dictionary<string, object> map, string name, T fallback) =>
        map.TryGetValue(name, out object? value) ? (T)value : fallback;

    private static T Word<T>(Dictionary<string, object> map, string name, T fallback) where T : struct, Enum =>
        map.TryGetValue(name, out object? value) && Names.TryParse((string)value, out T word) ? word : fallback;

    private static VnodePolicy Policy(Dictionary<string, object> map, VnodePolicy fallback) =>
        Word(map, "policy", fallback) is var policy && policy == VnodePolicy.Default ? VnodePolicy.Auto : policy;

    private static string Resolve(string? folder, string path) => folder is null || path.Length == 0 ? path : Path.Combine(folder, path);
}
