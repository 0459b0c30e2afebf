using System.Globalization;
using System.Text.Json.Serialization;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>One network device.</summary>
public sealed record NetSpec
{
    /// <summary>The MTU of a private network, bytes.</summary>
    public const int NetworkMtu = 1500;

    /// <summary>Most entries of <see cref="Addresses"/>.</summary>
    public const int MostAddresses = 16;

    /// <summary>What <see cref="Source"/> is for user-mode networking; no interface can be called so.</summary>
    public const string UserSource = "user:passt";

    /// <summary>Tap interface of the host; it exists already. Empty when the frames go elsewhere.</summary>
    public string Tap { get; init; } = "";

    /// <summary>User-mode networking in place of a tap; null: none.</summary>
    public UserNetSpec? User { get; init; }

    /// <summary>Bridge of the host in place of a tap: a tap is made for the device, and goes with it; null: none.</summary>
    public string? Bridge { get; init; }

    /// <summary>
    /// Private network of vmmd in place of a tap: vmmd makes a tap on its bridge, and reserves an address for the device; null: none.
    /// </summary>
    public string? Network { get; init; }

    /// <summary>
    /// Card of the host in place of a tap: the device is on its network beside the host, by a macvtap interface; null: none.
    /// </summary>
    public string? Macvtap { get; init; }

    /// <summary>How the macvtap interfaces of a card reach each other; null: <see cref="MacvtapMode.Bridge"/>.</summary>
    public MacvtapMode? Mode { get; init; }

    /// <summary>VLAN that the device is in, without tags; null: as the bridge has its ports.</summary>
    public int? Vlan { get; init; }

    /// <summary>
    /// true: the guest is held to its MAC address, and to <see cref="Addresses"/>. Needs a bridge and a <see cref="Mac"/>, or a network,
    /// where it is so anyway when the kernel can.
    /// </summary>
    public bool? AntiSpoof { get; init; }

    /// <summary>
    /// IP addresses that the guest may use when it is held to them; null: any. On a network: the one that is reserved for it; null: a free
    /// one.
    /// </summary>
    public IReadOnlyList<string>? Addresses { get; init; }

    /// <summary>MAC address of the guest's side, <c>52:54:00:…</c>; null for <see cref="MacAddress.Default"/>.</summary>
    public string? Mac { get; init; }

    /// <summary>Queue pairs.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>MTU told to the guest, bytes; null tells the tap's.</summary>
    public int? Mtu { get; init; }

    /// <summary>Transport; null is the VM's.</summary>
    public VirtioTransport? Transport { get; init; }

    /// <summary>Who moves the frames.</summary>
    public VhostUse Vhost { get; init; }

    /// <summary>Rate limits of each direction; null is none.</summary>
    public LimitsSpec? Limits { get; init; }

    /// <summary>The vnode it is near: its I/O threads run beside it, and the guest is told; null is none.</summary>
    public int? Vnode { get; init; }

    /// <summary>
    /// What is behind the device, for people and for telling devices apart: the tap, <see cref="UserSource"/>, or the bridge,
    /// network or card as <c>bridge:NAME</c>, <c>network:NAME</c> or <c>macvtap:NAME</c>, with <c>/MAC</c> when it has one.
    /// </summary>
    [JsonIgnore]
    public string Source => User is not null ? UserSource
        : (Bridge ?? Network ?? Macvtap) is not { } shared ? Tap
        : (Bridge is not null ? "bridge:" : Network is not null ? "network:" : "macvtap:") + shared + (Mac is null ? "" : "/" + Mac);

    /// <summary>A name that a private network can have.</summary>
    public static bool IsNetworkName(string? name) => name is not null && SpecValidation.IsName(name);
}

/// <summary>How macvtap interfaces of one card reach each other, ip-link(8).</summary>
public enum MacvtapMode
{
    /// <summary>Directly.</summary>
    Bridge,

    /// <summary>Not at all.</summary>
    Private,

    /// <summary>By the switch that the card is connected to.</summary>
    Vepa,

    /// <summary>There is one, which has the card for itself.</summary>
    Passthru,
}

/// <summary>Whether the host's kernel moves the frames of a network device (vhost-net).</summary>
public enum VhostUse
{
    /// <summary>When it can, and the device has no limits, which the kernel does not know.</summary>
    Auto,

    /// <summary>Yes, or the VM does not start.</summary>
    On,

    /// <summary>No.</summary>
    Off,
}

/// <summary>Rate limits of a disk or network device; what is null is not limited.</summary>
public sealed record LimitsSpec
{
    /// <summary>Greatest bandwidth and burst: an exbibyte.</summary>
    public const ulong MostBytes = 1UL << 60;

    /// <summary>Bytes a second.</summary>
    public ByteSize? Bandwidth { get; init; }

    /// <summary>Requests or frames a second.</summary>
    public int? Operations { get; init; }

    /// <summary>Bytes that may go at once after a pause; null: a tenth of a second's, at least 128 KiB.</summary>
    public ByteSize? Burst { get; init; }

    /// <summary>Requests or frames that may go at once after a pause; null: a tenth of a second's, at least one.</summary>
    public int? OperationsBurst { get; init; }
}

/// <summary>MAC addresses in text.</summary>
public static class MacAddress
{
    /// <summary>Reads six pairs of hexadecimal digits with colons between them; false for anything else.</summary>
    public static bool TryParse(string text, Span<byte> mac)
    {
        if (text.Length != 17)
        {
            return false;
        }

        for (int i = 0; i < 6; i++)
        {
            if ((i < 5 && text[(3 * i) + 2] != ':')
                || !byte.TryParse(text.AsSpan(3 * i, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out mac[i]))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>A locally administered address (52:54:00:…) that stays the same for a VM's name and a device's place.</summary>
    public static byte[] Default(string vm, int index)
    {
        // FNV-1a: stable over processes and versions, which a string's own hash is not.
        uint hash = 2166136261;
        foreach (char c in vm)
        {
            hash = (hash ^ c) * 16777619;
        }

        hash = (hash ^ (uint)index) * 16777619;
        hash ^= hash >> 24;
        return [0x52, 0x54, 0x00, (byte)(hash >> 16), (byte)(hash >> 8), (byte)hash];
    }

    /// <summary>The text of one: six pairs of lower-case hexadecimal digits.</summary>
    public static string Text(ReadOnlySpan<byte> mac) => string.Create(
        CultureInfo.InvariantCulture, $"{mac[0]:x2}:{mac[1]:x2}:{mac[2]:x2}:{mac[3]:x2}:{mac[4]:x2}:{mac[5]:x2}");

    /// <summary>What a device of a VM has: the address of its entry, or the one of its place.</summary>
    public static string Of(NetSpec net, string vm, int index) =>
        net.Mac is { } own ? own.ToLowerInvariant() : Text(Default(vm, index));
}
