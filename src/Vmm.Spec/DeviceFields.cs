namespace Vmm.Spec;

using Disk = FieldsOf<DiskSpec>;
using Front = FieldsOf<FrontSpec>;
using Limit = FieldsOf<LimitsSpec>;
using Nbd = FieldsOf<NbdSpec>;
using NbdTls = FieldsOf<NbdTlsSpec>;
using Net = FieldsOf<NetSpec>;
using OnError = FieldsOf<OnErrorSpec>;
using Rbd = FieldsOf<RbdSpec>;
using Share = FieldsOf<ShareSpec>;
using Source = FieldsOf<SourceSpec>;
using User = FieldsOf<UserNetSpec>;

/// <summary>The fields of disks, network devices and shared folders.</summary>
internal static class DeviceFields
{
    private const string NearHelp = "The vnode it is near: its I/O threads run beside it, and the guest is told (SRAT generic initiator)";

    private static readonly SpecField[] s_nbdTls =
    [
        NbdTls.Path("certificates", "Folder with ca-cert.pem and, for a server that asks, client-cert.pem and client-key.pem",
            t => t.Certificates, (t, v) => t with { Certificates = v }),
        NbdTls.Path("psk", "File of pre-shared keys, in place of certificates", t => t.Psk, (t, v) => t with { Psk = v }),
        NbdTls.Text("user", "Whose key of that file", t => t.User, (t, v) => t with { User = v }) with { Max = 255 },
        NbdTls.Bool("verify", "false: a server's certificate is not checked. true, the default, is refused with certificates",
            t => t.Verify, (t, v) => t with { Verify = v }),
    ];

    private static readonly SpecField[] s_nbd =
    [
        Nbd.Text("host", "Host name or address of the server", n => n.Host, (n, v) => n with { Host = v }) with { Max = 253 },
        Nbd.Number("port", "Its port, 10809 by default", 1, 65535, n => n.Port, (n, v) => n with { Port = v }),
        Nbd.Path("socket", "Unix socket of the server, in place of host and port", n => n.Socket, (n, v) => n with { Socket = v }),
        Nbd.Text("export", "Name of the export; the server's default without it",
            n => n.Export, (n, v) => n with { Export = v }) with { Max = NbdValidation.MostExport },
        Nbd.Object("tls", "TLS; without it the connection is not encrypted", n => n.Tls, (n, v) => n with { Tls = v }, s_nbdTls),
        Nbd.Number("reconnect", "Seconds for which requests are held when the connection is lost, before they fail; 60 by default",
            0, NbdValidation.MostReconnect, n => n.Reconnect, (n, v) => n with { Reconnect = v }),
        Nbd.Number("timeout", "A server that leaves a command without an answer for so many seconds is taken for lost; 30 by default",
            1, NbdValidation.MostTimeout, n => n.Timeout, (n, v) => n with { Timeout = v }),
        Nbd.Word<UnflushedPolicy>("unflushed",
            "Writes that were not flushed when the connection was lost. fail: the next flush fails; trust: the server has them",
            n => n.Unflushed, (n, v) => n with { Unflushed = v }),
    ];

    private static readonly SpecField[] s_rbd =
    [
        Rbd.Text("pool", "The pool", r => r.Pool, (r, v) => r with { Pool = v }) with { Required = true, Max = 96 },
        Rbd.Text("namespace", "The namespace of the pool; its usual one without it",
            r => r.Namespace, (r, v) => r with { Namespace = v }) with { Max = 96 },
        Rbd.Text("image", "The image", r => r.Image, (r, v) => r with { Image = v }) with { Required = true, Max = 96 },
        Rbd.Path("conf", "The cluster's ceph.conf; /etc/ceph/ceph.conf by default", r => r.Conf, (r, v) => r with { Conf = v }),
        Rbd.Text("user", "The user of the cluster, without client. before it; admin by default",
            r => r.User, (r, v) => r with { User = v }) with { Max = 96 },
        Rbd.Path("keyring", "The file with the user's key; /etc/ceph/ceph.client.USER.keyring by default",
            r => r.Keyring, (r, v) => r with { Keyring = v }),
        Rbd.Number("reconnect", "Seconds for which requests are held when the cluster does not answer, before they fail; 600 by default",
            0, NbdValidation.MostReconnect, r => r.Reconnect, (r, v) => r with { Reconnect = v }),
        Rbd.Number("timeout", "A request without an answer for so many seconds is asked again; 30 by default",
            1, NbdValidation.MostTimeout, r => r.Timeout, (r, v) => r with { Timeout = v }),
    ];

    private static readonly SpecField[] s_source =
    [
        Source.Path("path", "Image or block device; relative to the spec file",
            s => s.Nbd is null && s.Rbd is null && s.Image is null ? s.Path : null, (s, v) => s with { Path = v }) with
        {
            Required = true,
            Unless = ["nbd", "rbd", "image"],
        },
        Source.Object("nbd", "A disk of an NBD server, in place of path", s => s.Nbd, (s, v) => s with
        {
            Nbd = v,
            Kind = SourceKind.Nbd,
            Path = s.Path.Length > 0 ? s.Path : v.Uri, // both were given: the rules say so
        }, s_nbd),
        Source.Object("rbd", "An image of a Ceph cluster, in place of path", s => s.Rbd, (s, v) => s with
        {
            Rbd = v,
            Kind = SourceKind.Rbd,
            Path = s.Path.Length > 0 ? s.Path : v.Uri,
        }, s_rbd),
        Source.Text("image", "Image of vmmd over which a disk of the VM's own is made, in place of path; when the VM is created",
            s => s.Image, (s, v) => s with { Image = v }) with { Max = ImageValidation.LongestName },
        Source.Size("size", "Size of the disk that is made over the image; the image's by default",
            s => s.Size, (s, v) => s with { Size = v }),
        Source.Word<DiskFormat>("format", "raw: the file is the disk; qcow2: an image, with those below it. Never guessed from the content",
            s => s.Format, (s, v) => s with { Format = v }) with { Option = "format" },
        Source.Word<DiskCache>("cache", "direct: O_DIRECT; buffered: the host's page cache (of rbd: librbd's own cache)",
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
        Front.Number("logicalBlockSize", "Bytes of the guest's blocks, 512 or 4096; the storage's own by default", 512, 4096,
            f => f.LogicalBlockSize, (f, v) => f with { LogicalBlockSize = v }) with { Option = "block-size" },
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

    private static readonly SpecField[] s_onError =
    [
        OnError.Word<FaultPolicy>("noSpace", "The host's file system is full: pause the VM until there is space, or report it to the guest",
            e => e.NoSpace, (e, v) => e with { NoSpace = v }),
        OnError.Word<FaultPolicy>("io", "Any other error: report it to the guest, or pause the VM until it is resumed",
            e => e.Io, (e, v) => e with { Io = v }),
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
        Disk.Object("onError", "What happens when the host fails requests of the disk",
            d => d.OnError, (d, v) => d with { OnError = v }, s_onError),
        Disk.Number("vnode", NearHelp, 0, SpecValidation.MaxVnodes - 1, d => d.Vnode, (d, v) => d with { Vnode = v }) with
        {
            Option = "vnode"
        },
        Disk.Object("source", "What the disk's content is in", d => d.Source, (d, v) => d with { Source = v },
            [
                Source.Word<SourceKind>("kind",
                    "raw: a file or block device of the host; nbd: a disk of an NBD server; rbd: an image of a Ceph cluster",
                    s => s.Kind, (s, v) => s with { Kind = v }),
                .. s_source,
            ]) with { OtherForm = true },
        Disk.Object("front", "How the guest sees the disk", d => d.Front, (d, v) => d with { Front = v },
            [Front.Word<FrontKind>("kind", "virtio-blk: a virtio block device", f => f.Kind, (f, v) => f with { Kind = v }),
                .. s_front]) with { OtherForm = true },
    ];

    private static readonly SpecField[] s_user =
    [
        User.Texts("publish", "Ports of the host that lead to ports of the guest: [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]; without an "
            + "address those of 127.0.0.1", UserNetSpec.MostPublished, PublishedPort.MostText,
            u => u.Publish, (u, v) => u with { Publish = v }),
    ];

    /// <summary>An entry of <c>nets</c>.</summary>
    internal static SpecField[] NetFields { get; } =
    [
        Net.Text("tap", "Tap interface of the host, which exists",
            n => n.Tap.Length > 0 || (n.User is null && (n.Bridge ?? n.Network ?? n.Macvtap) is null) ? n.Tap : null,
            (n, v) => n with { Tap = v }) with
        {
            Required = true,
            Unless = ["user", "bridge", "network", "macvtap"],
            Option = "tap",
        },
        Net.Object("user", "User-mode networking in place of a tap: needs no privileges, but the program passt",
            n => n.User, (n, v) => n with { User = v }, s_user) with { Switch = true, Option = "user" },
        Net.Text("bridge", "Bridge of the host in place of a tap: a tap is made for the device, and goes with it",
            n => n.Bridge, (n, v) => n with { Bridge = v }) with { Option = "bridge", Max = 15 },
        Net.Text("network", "Private network of vmmd in place of a tap, made by 'vmmctl network create': addresses, names and a way out",
            n => n.Network, (n, v) => n with { Network = v }) with { Option = "network", Max = 64 },
        Net.Text("macvtap", "Card of the host in place of a tap: the VM is on its network, beside the host, which it does not reach",
            n => n.Macvtap, (n, v) => n with { Macvtap = v }) with { Option = "macvtap", Max = 15 },
        Net.Word<MacvtapMode>("mode", "How VMs on one card reach each other: directly, not at all, by the switch, or there is one only",
            n => n.Mode, (n, v) => n with { Mode = v }) with { Option = "mode" },
        Net.Number("vlan", "VLAN of the bridge that the device is in; the bridge separates VLANs (vlan_filtering)",
            1, 4094, n => n.Vlan, (n, v) => n with { Vlan = v }) with { Option = "vlan" },
        Net.Bool("antiSpoof", "The guest is held to its mac, and to addresses when there are any",
            n => n.AntiSpoof == true, (n, v) => n with { AntiSpoof = v ? true : null }) with { Option = "anti-spoof" },
        Net.Texts("addresses", "IP addresses that antiSpoof lets the guest use; none: any. Of a network: the one to reserve",
            NetSpec.MostAddresses, PublishedPort.MostText, n => n.Addresses!, (n, v) => n with { Addresses = v }),
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

    /// <summary>An entry of <c>shares</c>.</summary>
    internal static SpecField[] ShareFields { get; } =
    [
        Share.Path("path", "Folder of the host; relative to the spec file", s => s.Path, (s, v) => s with { Path = v }) with
        {
            Required = true
        },
        Share.Text("tag", "What the guest mounts: mount -t virtiofs TAG FOLDER; the folder's own name by default",
            s => s.Tag, (s, v) => s with { Tag = v }) with { Option = "tag", Max = ShareSpec.LongestTag },
        Share.Bool("readOnly", "Refuse what would change it", s => s.ReadOnly, (s, v) => s with { ReadOnly = v }) with { Option = "ro" },
    ];

    private static SpecField Limits<TOwner>(string of, Func<TOwner, LimitsSpec?> get, Func<TOwner, LimitsSpec, TOwner> set)
        where TOwner : class =>
        FieldsOf<TOwner>.Object("limits", "Rate limits " + of, get, set, s_limits);
}
