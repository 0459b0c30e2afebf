namespace Vmm.Spec;

using Disk = FieldsOf<DiskSpec>;
using Front = FieldsOf<FrontSpec>;
using Limit = FieldsOf<LimitsSpec>;
using Net = FieldsOf<NetSpec>;
using Source = FieldsOf<SourceSpec>;

/// <summary>The fields of disks and network devices.</summary>
internal static class DeviceFields
{
    private const string NearHelp = "The vnode it is near: its I/O threads run beside it, and the guest is told (SRAT generic initiator)";

    private static readonly SpecField[] s_source =
    [
        Source.Path("path", "Raw image or block device; relative to the spec file",
            s => s.Path, (s, v) => s with { Path = v }) with { Required = true },
        Source.Word<DiskCache>("cache", "direct: O_DIRECT; buffered: the host's page cache",
            s => s.Cache, (s, v) => s with { Cache = v }) with { Option = "cache" },
    ];

    private static readonly SpecField[] s_front =
    [
        Front.Text("serial", "Serial number, up to 20 ASCII characters",
            f => f.Serial, (f, v) => f with { Serial = v }) with { Option = "serial" },
        Front.Number("queues", "Request queues",
            1, SpecValidation.MaxQueues, f => f.Queues, (f, v) => f with { Queues = v }) with { Option = "queues" },
        Front.Number("queueSize", "Descriptors per queue, a power of two", SpecValidation.MinQueueSize, SpecValidation.MaxQueueSize,
            f => f.QueueSize, (f, v) => f with { QueueSize = v }) with { Option = "queue-size" },
        Front.Word<VirtioTransport>("transport", "virtio transport of this disk",
            f => f.Transport, (f, v) => f with { Transport = v }) with { Option = "transport" },
    ];

    private static readonly SpecField[] s_limits =
    [
        Limit.Size("bandwidth", "Bytes a second, e.g. 100MiB", l => l.Bandwidth, (l, v) => l with { Bandwidth = v }),
        Limit.Number("operations", "Requests or frames a second",
            1, SpecValidation.MaxOperations, l => l.Operations, (l, v) => l with { Operations = v }),
        Limit.Size("burst", "Bytes that may go at once after a pause; a tenth of a second's, at least 128KiB, by default",
            l => l.Burst, (l, v) => l with { Burst = v }),
        Limit.Number("operationsBurst", "Requests or frames that may go at once after a pause; a tenth of a second's by default",
            1, SpecValidation.MaxOperations,
            l => l.OperationsBurst, (l, v) => l with { OperationsBurst = v }),
    ];

    /// <summary>
    /// An entry of <c>disks</c>: what is behind it and how the guest sees it, side by side or in <c>source</c> and <c>front</c>.
    /// </summary>
    internal static SpecField[] DiskFields { get; } =
    [
        .. Disk.Lift(s_source, d => d.Source, (d, s) => d with { Source = s }).Select(f => f with { InsteadOf = "source" }),
        .. Disk.Lift(s_front, d => d.Front, (d, f) => d with { Front = f }).Select(f => f with { InsteadOf = "front" }),
        Disk.Bool("readOnly", "Refuse writes", d => d.ReadOnly, (d, v) => d with { ReadOnly = v }) with { Option = "ro" },
        Limits<DiskSpec>("of reads and writes together", d => d.Limits, (d, v) => d with { Limits = v }),
        Disk.Number("vnode", NearHelp, 0, SpecValidation.MaxVnodes - 1, d => d.Vnode, (d, v) => d with { Vnode = v }) with
        {
            Option = "vnode"
        },
        Disk.Object("source", "What the disk's content is in", d => d.Source, (d, v) => d with { Source = v },
            [Source.Word<SourceKind>("kind", "raw: a file or block device as it is", s => s.Kind, (s, v) => s with { Kind = v }),
                .. s_source]) with { OtherForm = true },
        Disk.Object("front", "How the guest sees the disk", d => d.Front, (d, v) => d with { Front = v },
            [Front.Word<FrontKind>("kind", "virtio-blk: a virtio block device", f => f.Kind, (f, v) => f with { Kind = v }),
                .. s_front]) with { OtherForm = true },
    ];

    /// <summary>An entry of <c>nets</c>.</summary>
    internal static SpecField[] NetFields { get; } =
    [
        Net.Text("tap", "Tap interface of the host, which exists",
            n => n.Tap, (n, v) => n with { Tap = v }) with { Required = true, Option = "tap" },
        Net.Text("mac", "MAC address of the guest's side; by default one of its own for the VM's name and the device's place",
            n => n.Mac, (n, v) => n with { Mac = v }) with { Option = "mac" },
        Net.Number("queues", "Queue pairs; more than one needs a tap with multi_queue", 1, SpecValidation.MaxNetQueues,
            n => n.Queues, (n, v) => n with { Queues = v }) with { Option = "queues" },
        Net.Number("mtu", "MTU told to the guest; the tap's own by default",
            68, 65535, n => n.Mtu, (n, v) => n with { Mtu = v }) with { Option = "mtu" },
        Net.Word<VirtioTransport>("transport", "virtio transport of this device",
            n => n.Transport, (n, v) => n with { Transport = v }) with { Option = "transport" },
        Net.Word<VhostUse>("vhost", "Whether the host's kernel moves the frames (vhost-net); auto: when it can and there are no limits",
            n => n.Vhost, (n, v) => n with { Vhost = v }) with { Option = "vhost" },
        Limits<NetSpec>("of each direction", n => n.Limits, (n, v) => n with { Limits = v }),
        Net.Number("vnode", NearHelp, 0, SpecValidation.MaxVnodes - 1, n => n.Vnode, (n, v) => n with { Vnode = v }) with
        {
            Option = "vnode"
        },
    ];

    private static SpecField Limits<TOwner>(string of, Func<TOwner, LimitsSpec?> get, Func<TOwner, LimitsSpec, TOwner> set)
        where TOwner : class =>
        FieldsOf<TOwner>.Object("limits", "Rate limits " + of, get, set, s_limits);
}
