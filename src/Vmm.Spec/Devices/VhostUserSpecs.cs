using System.Numerics;
using System.Text;
using System.Text.Json.Serialization;

namespace Vmm.Spec.Devices;

using Blk = FieldsOf<VhostUserBlkSpec>;
using Net = FieldsOf<VhostUserNetSpec>;

/// <summary>A disk that another program has and serves over vhost-user, e.g. qemu-storage-daemon or SPDK.</summary>
public sealed record VhostUserBlkSpec : DeviceSpec
{
    internal const string Word = "vhost-user-blk";

    /// <inheritdoc/>
    public override string Kind => Word;

    /// <summary>The unix socket at which the program listens.</summary>
    public string Socket { get; init; } = "";

    /// <summary>Request queues.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Descriptors per queue, a power of two.</summary>
    public int QueueSize { get; init; } = 128;

    /// <inheritdoc/>
    [JsonIgnore]
    public override string? BackEnd => Socket;

    internal static DeviceKind Registration { get; } = DeviceKind.Of(
        Word,
        "A disk that another program has and serves (vhost-user), e.g. qemu-storage-daemon or SPDK: /dev/vda as any other",
        VhostUserJson.Default.VhostUserBlkSpec,
        Blk.Path("socket", VhostUserRules.SocketHelp, d => d.Socket, (d, v) => d with { Socket = v }) with { Required = true },
        Blk.Number("queues", "Request queues, which the program must have", 1, SpecValidation.MaxQueues,
            d => d.Queues, (d, v) => d with { Queues = v }),
        Blk.Number("queueSize", "Descriptors per queue, a power of two", SpecValidation.MinQueueSize, SpecValidation.MaxQueueSize,
            d => d.QueueSize, (d, v) => d with { QueueSize = v }));

    /// <inheritdoc/>
    public override IEnumerable<SpecProblem> Check() =>
    [
        .. VhostUserRules.Socket(Socket),
        .. VhostUserRules.Sizes(QueueSize, SpecValidation.MinQueueSize),
        .. VhostUserRules.Queues(Queues),
    ];
}

/// <summary>A network device whose frames another program moves over vhost-user: a software switch.</summary>
public sealed record VhostUserNetSpec : DeviceSpec
{
    internal const string Word = "vhost-user-net";
    private const int LeastQueueSize = 64; // a frame of 64 KiB in small buffers

    /// <inheritdoc/>
    public override string Kind => Word;

    /// <summary>The unix socket at which the program listens.</summary>
    public string Socket { get; init; } = "";

    /// <summary>MAC address of the guest's side; null: one of its own for the VM's name and the device's place.</summary>
    public string? Mac { get; init; }

    /// <summary>MTU told to the guest; null: none is.</summary>
    public int? Mtu { get; init; }

    /// <summary>Descriptors per queue, a power of two.</summary>
    public int QueueSize { get; init; } = 256;

    /// <inheritdoc/>
    [JsonIgnore]
    public override string? BackEnd => Socket;

    internal static DeviceKind Registration { get; } = DeviceKind.Of(
        Word,
        "A network device whose frames another program moves (vhost-user): a switch of DPDK, VPP or Open vSwitch, or passt",
        VhostUserJson.Default.VhostUserNetSpec,
        Net.Path("socket", VhostUserRules.SocketHelp, d => d.Socket, (d, v) => d with { Socket = v }) with { Required = true },
        Net.Text("mac", "MAC address of the guest's side; by default one of its own for the VM's name and the device's place",
            d => d.Mac, (d, v) => d with { Mac = v }) with { Max = 17 },
        Net.Number("mtu", "MTU told to the guest; by default none is", 68, 65535, d => d.Mtu, (d, v) => d with { Mtu = v }),
        Net.Number("queueSize", "Descriptors per queue, a power of two", LeastQueueSize, SpecValidation.MaxQueueSize,
            d => d.QueueSize, (d, v) => d with { QueueSize = v }));

    /// <inheritdoc/>
    public override IEnumerable<SpecProblem> Check()
    {
        foreach (SpecProblem problem in VhostUserRules.Socket(Socket).Concat(VhostUserRules.Sizes(QueueSize, LeastQueueSize)))
        {
            yield return problem;
        }

        byte[] mac = new byte[6];
        if (Mac is not null && (!MacAddress.TryParse(Mac, mac) || (mac[0] & 1) != 0 || mac.All(each => each == 0)))
        {
            yield return new SpecProblem("mac", $"\"{SpecPass.Clip(Mac, 64)}\", expected the address of one device such as "
                + "52:54:00:12:34:56");
        }

        if (Mtu is < 68 or > 65535)
        {
            yield return new SpecProblem("mtu", $"{Mtu ?? 0}, expected 68 to 65535");
        }
    }
}

/// <summary>What both have in common.</summary>
internal static class VhostUserRules
{
    internal const string SocketHelp = "Unix socket at which the program listens; relative to the spec file";

    private const int MostSocket = 107; // sun_path of unix(7), with its zero

    internal static IEnumerable<SpecProblem> Socket(string? socket)
    {
        if (socket is not { Length: > 0 } || socket.Contains('\0', StringComparison.Ordinal))
        {
            yield return new SpecProblem("socket", "expected the path of a unix socket");
        }
        else if (socket.Length > MostSocket || Encoding.UTF8.GetByteCount(socket) > MostSocket)
        {
            yield return new SpecProblem("socket", $"the path of a unix socket has at most {MostSocket} bytes");
        }
    }

    // Bounds also for what comes as JSON, past the reader.
    internal static IEnumerable<SpecProblem> Sizes(int size, int least)
    {
        if (size < least || size > SpecValidation.MaxQueueSize || !BitOperations.IsPow2(size))
        {
            yield return new SpecProblem(
                "queueSize", $"{size}, expected a power of two from {least} to {SpecValidation.MaxQueueSize}");
        }
    }

    internal static IEnumerable<SpecProblem> Queues(int queues)
    {
        if (queues is < 1 or > SpecValidation.MaxQueues)
        {
            yield return new SpecProblem("queues", $"{queues}, expected 1 to {SpecValidation.MaxQueues}");
        }
    }

    /// <summary>The rules that hold among the devices of a VM.</summary>
    internal static void Check(VmSpec spec, SpecComplaints check)
    {
        HashSet<string> sockets = new(StringComparer.Ordinal), macs = new(StringComparer.OrdinalIgnoreCase);
        macs.UnionWith(spec.Nets.Select(net => net.Mac).OfType<string>());
        bool hasPmem = spec.Devices.OfType<PmemSpec>().Any();
        for (int i = 0; i < spec.Devices.Count; i++)
        {
            DeviceSpec device = spec.Devices[i];
            if (device.BackEnd is not { } socket)
            {
                continue;
            }

            check.Require(sockets.Add(socket), $"devices[{i}].socket", $"{socket} is another device's too: a program serves one of them");
            check.Require(!hasPmem, $"devices[{i}]",
                $"a {device.Kind} stands beside a pmem device: its program does not reach persistent memory. Take a disk in place of pmem");
            if (device is VhostUserNetSpec { Mac: { } mac })
            {
                check.Require(macs.Add(mac), $"devices[{i}].mac", $"{mac} is another device's too");
            }
        }
    }
}

/// <summary>JSON of the records.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(VhostUserBlkSpec))]
[JsonSerializable(typeof(VhostUserNetSpec))]
internal sealed partial class VhostUserJson : JsonSerializerContext;
