using Vmm.Cpu;

namespace Vmm.Spec;

internal enum SpecKind
{
    Text,
    Bool,
    Number,
    Size,
    Set,
    Percent,
    Word,
    Object,
    List,
}

/// <summary>One field of the spec: the reader, the schema and the suggestions all come from this table.</summary>
internal sealed record SpecField(string Name, SpecKind Kind, string Help)
{
    public long Min { get; init; }

    /// <summary>Of a number the largest value, of a text the most characters (0: as many as a path has), of a list the most entries.</summary>
    public long Max { get; init; }

    /// <summary>The most characters of a text.</summary>
    public long MaxLength => Max > 0 ? Max : LongestPath;

    private const int LongestPath = 4096; // PATH_MAX

    public string[] Words { get; init; } = [];

    public bool Required { get; init; }

    /// <summary>Fields of an object, or of the members of a list of objects.</summary>
    public SpecField[] Fields { get; init; } = [];

    /// <summary>An object that may be given as <c>true</c> (all its defaults) or <c>false</c> (none).</summary>
    public bool Switch { get; init; }

    /// <summary>The members of a list that are not objects.</summary>
    public SpecField? Item { get; init; }
}

internal static class SpecTable
{
    private static readonly string[] Transports = Names.All<VirtioTransport>();

    private static SpecField Matrix(string name, string help, long most) => new(name, SpecKind.List, help)
    {
        Max = SpecValidation.MaxVnodes,
        Item = new("", SpecKind.List, "One row") { Max = SpecValidation.MaxVnodes, Item = new("", SpecKind.Number, "One vnode") { Min = 1, Max = most } },
    };

    private static SpecField Limits(string of) => new("limits", SpecKind.Object, "Rate limits " + of)
    {
        Fields =
        [
            new("bandwidth", SpecKind.Size, "Bytes a second, e.g. 100MiB"),
            new("operations", SpecKind.Number, "Requests or frames a second") { Min = 1, Max = SpecValidation.MaxOperations },
            new("burst", SpecKind.Size, "Bytes that may go at once after a pause; a tenth of a second's, at least 128KiB, by default"),
            new("operationsBurst", SpecKind.Number, "Requests or frames that may go at once after a pause; a tenth of a second's by default") { Min = 1, Max = SpecValidation.MaxOperations },
        ],
    };

    /// <summary>What an entry of a list of the root has for fields.</summary>
    internal static SpecField Part(string list) => Array.Find(Root.Fields, f => string.Equals(f.Name, list, StringComparison.Ordinal))!;

    internal static readonly SpecField Root = new("", SpecKind.Object, "A virtual machine")
    {
        Fields =
        [
            new("name", SpecKind.Text, "Name of the VM, letters, digits, '.', '_' and '-'"),
            new("cpus", SpecKind.Number, "Number of vCPUs; with numa, all CPUs the vnodes name when left out") { Min = 1, Max = SpecValidation.MaxCpus },
            new("cpu", SpecKind.Object, "The processor the guest sees; left out, all that the host can show")
            {
                Fields =
                [
                    new("model", SpecKind.Word, "host, or a model that is the same on every host that can run it") { Words = CpuModel.Names },
                    new("features", SpecKind.List, "Features beside the model's")
                    {
                        Max = SpecValidation.MaxCpuFeatures,
                        Item = new("", SpecKind.Text, "+name adds a feature, -name takes one away") { Max = 64 },
                    },
                ],
            },
            new("cpuQuota", SpecKind.Percent, "Most time on host CPUs the whole VM gets, in percent of one: 150% is one and a half; without it there is no quota")
            {
                Min = 1,
                Max = SpecValidation.MaxCpuQuota,
            },
            new("cpuWeight", SpecKind.Number, "Share of host CPUs beside other VMs when there are not enough for all; 100 by default") { Min = 1, Max = SpecValidation.MaxCpuWeight },
            new("topology", SpecKind.Object, "How vCPUs are packed; left out, each vnode is a socket and each vCPU a core")
            {
                Fields =
                [
                    new("sockets", SpecKind.Number, "Sockets; left out, what cores leave, else one for each vnode with CPUs") { Min = 1, Max = SpecValidation.MaxCpus },
                    new("dies", SpecKind.Number, "Dies of a socket; each has its own last-level cache and lies in one vnode") { Min = 1, Max = SpecValidation.MaxCpus },
                    new("cores", SpecKind.Number, "Cores of a die; left out, what the others leave") { Min = 1, Max = SpecValidation.MaxCpus },
                    new("threads", SpecKind.Number, "Threads of a core") { Min = 1, Max = SpecValidation.MaxCpus },
                ],
            },
            new("memory", SpecKind.Size, "RAM, e.g. 512MiB; with numa, the sum of the vnodes when left out"),
            new("minMemory", SpecKind.Size, "Least RAM the VM can shrink to while it runs; the guest needs the virtio-mem driver for the rest"),
            new("maxMemory", SpecKind.Size, "Most RAM the VM can grow to while it runs; the guest needs the virtio-mem driver"),
            new("boot", SpecKind.Object, "What to boot")
            {
                Required = true,
                Fields =
                [
                    new("kernel", SpecKind.Text, "bzImage or ELF64 kernel; relative to the spec file") { Required = true },
                    new("initrd", SpecKind.Text, "Initial ramdisk; relative to the spec file"),
                    new("cmdline", SpecKind.Text, "Kernel command line") { Max = SpecValidation.MaxCmdline },
                ],
            },
            new("numa", SpecKind.Object, "Virtual NUMA topology; true for one that follows the host")
            {
                Switch = true,
                Fields =
                [
                    new("count", SpecKind.Number, "Without vnodes: so many, on the host nodes that have room; as few as fit when left out") { Min = 1, Max = SpecValidation.MaxVnodes },
                    new("fit", SpecKind.Word, "With vnodes, when the host has not their hostNodes, or not the room: exact refuses the start, best maps them as well as possible") { Words = Names.All<FitWish>() },
                    new("vnodes", SpecKind.List, "The virtual NUMA nodes, in order; left out, they follow the host")
                    {
                        Max = SpecValidation.MaxVnodes,
                        Fields =
                        [
                            new("cpus", SpecKind.Set, "vCPUs on this vnode, e.g. 0-3,8"),
                            new("memory", SpecKind.Size, "RAM of this vnode"),
                            new("minMemory", SpecKind.Size, "Least RAM it can shrink to while the VM runs"),
                            new("maxMemory", SpecKind.Size, "Most RAM it can grow to while the VM runs"),
                            new("hostNodes", SpecKind.Set, "Host NUMA nodes the memory comes from"),
                            new("policy", SpecKind.Word, "How hostNodes are used; strict when hostNodes are given, else auto (default is its older name)") { Words = Names.All<VnodePolicy>() },
                            new("pageSize", SpecKind.Size, "Host page size: 4KiB, 2MiB or 1GiB"),
                        ],
                    },
                    new("distances", SpecKind.List, "SLIT rows: distance from each vnode to each vnode")
                    {
                        Max = SpecValidation.MaxVnodes,
                        Item = new("", SpecKind.List, "One row") { Max = SpecValidation.MaxVnodes, Item = new("", SpecKind.Number, "Distance, 10 to itself") { Min = 10, Max = 255 } },
                    },
                    Matrix("latencies", "HMAT rows: nanoseconds of an access from each vnode to each vnode", SpecValidation.MaxLatency),
                    Matrix("bandwidths", "HMAT rows: 10^6 bytes a second from each vnode to each vnode", SpecValidation.MaxBandwidth),
                ],
            },
            new("disks", SpecKind.List, "Disks in guest order")
            {
                Max = SpecValidation.MaxDisks,
                Fields =
                [
                    new("path", SpecKind.Text, "Raw image or block device; relative to the spec file") { Required = true },
                    new("readOnly", SpecKind.Bool, "Refuse writes"),
                    new("serial", SpecKind.Text, "Serial number, up to 20 ASCII characters"),
                    new("queues", SpecKind.Number, "Request queues") { Min = 1, Max = SpecValidation.MaxQueues },
                    new("queueSize", SpecKind.Number, "Descriptors per queue, a power of two") { Min = SpecValidation.MinQueueSize, Max = SpecValidation.MaxQueueSize },
                    new("cache", SpecKind.Word, "direct: O_DIRECT; buffered: the host's page cache") { Words = Names.All<DiskCache>() },
                    new("transport", SpecKind.Word, "virtio transport of this disk") { Words = Transports },
                    Limits("of reads and writes together"),
                    new("vnode", SpecKind.Number, "The vnode it is near: its I/O threads run beside it, and the guest is told (SRAT generic initiator)") { Max = SpecValidation.MaxVnodes - 1 },
                ],
            },
            new("nets", SpecKind.List, "Network devices in guest order")
            {
                Max = SpecValidation.MaxNets,
                Fields =
                [
                    new("tap", SpecKind.Text, "Tap interface of the host, which exists") { Required = true },
                    new("mac", SpecKind.Text, "MAC address of the guest's side; by default one of its own for the VM's name and the device's place"),
                    new("queues", SpecKind.Number, "Queue pairs; more than one needs a tap with multi_queue") { Min = 1, Max = SpecValidation.MaxNetQueues },
                    new("mtu", SpecKind.Number, "MTU told to the guest; the tap's own by default") { Min = 68, Max = 65535 },
                    new("transport", SpecKind.Word, "virtio transport of this device") { Words = Transports },
                    new("vhost", SpecKind.Word, "Whether the host's kernel moves the frames (vhost-net); auto: when it can and there are no limits") { Words = Names.All<VhostUse>() },
                    Limits("of each direction"),
                    new("vnode", SpecKind.Number, "The vnode it is near: its I/O threads run beside it, and the guest is told (SRAT generic initiator)") { Max = SpecValidation.MaxVnodes - 1 },
                ],
            },
            new("rng", SpecKind.Bool, "Attach a virtio-rng"),
            new("balance", SpecKind.Object, "vmmd's balancer may change memory by need, between minMemory and maxMemory or by the balloon; true for the usual weight")
            {
                Switch = true,
                Fields =
                [
                    new("weight", SpecKind.Number, "Share when there is not enough for all; 100 by default") { Min = 1, Max = BalanceSpec.MaxWeight },
                    new("minMemory", SpecKind.Size, "For a VM with a balloon and without minMemory and maxMemory: the balloon may take what is beyond this"),
                ],
            },
            new("balloon", SpecKind.Object, "Memory balloon; true for one with the defaults")
            {
                Switch = true,
                Fields =
                [
                    new("target", SpecKind.Size, "Size of the balloon asked for at the start"),
                    new("deflateOnOom", SpecKind.Bool, "The guest may take pages back when it runs out of memory"),
                    new("freePageReporting", SpecKind.Bool, "The host takes the memory of pages the guest does not use"),
                    new("statsInterval", SpecKind.Number, "Seconds between questions for statistics; 0 asks on demand only") { Max = 86400 },
                ],
            },
            new("vsock", SpecKind.Object, "Sockets between host programs and the guest")
            {
                Fields =
                [
                    new("cid", SpecKind.Number, "Context id of the guest") { Min = 3, Max = int.MaxValue },
                    new("path", SpecKind.Text, "Unix socket for host programs; the guest reaches PATH_N as port N; relative to the spec file") { Required = true },
                ],
            },
            new("console", SpecKind.Word, "What the console is connected to: the serial port, a virtio console, or both") { Words = Names.All<ConsoleKind>() },
            new("pvpanic", SpecKind.Bool, "A device through which the guest tells of its panic"),
            new("generationId", SpecKind.Text, "VM generation id: auto, or a UUID"),
            new("restart", SpecKind.Word, "Whether vmmd starts the VM again when it ended by itself") { Words = Names.All<RestartPolicy>() },
            new("onCrash", SpecKind.Word, "When the guest's kernel panics (pvpanic): stop, what restart says follows; restart it; or preserve it, its vCPUs stand still") { Words = Names.All<CrashPolicy>() },
            new("onReboot", SpecKind.Word, "When the guest reboots: vmmd starts the VM anew, or it ends as by a power-off") { Words = Names.All<RebootPolicy>() },
            new("autostart", SpecKind.Bool, "vmmd starts the VM when the host has booted"),
            new("virtioTransport", SpecKind.Word, "Transport of devices that do not name one") { Words = Transports },
            new("serial", SpecKind.Bool, "Serial console at 0x3F8"),
            new("debugExit", SpecKind.Bool, "Debug-exit port"),
        ],
    };
}
