using System.Text.Json.Serialization;

namespace Vmm.Daemon.Networks;

/// <summary>A private network as it is stored.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Id">Tells its objects on the host from those of others.</param>
/// <param name="Number">Number of its bridge.</param>
/// <param name="Subnet">Its IPv4 range.</param>
/// <param name="Isolated">It leads nowhere.</param>
/// <param name="Created">When it was made.</param>
/// <param name="Reserved">Addresses of devices.</param>
/// <param name="Ipv6">Its IPv6 range; null: it has none, as those of before there were any.</param>
internal sealed record NetworkRecord(
    string Name, string Id, int Number, string Subnet, bool Isolated, DateTimeOffset Created, IReadOnlyList<NetworkReservation> Reserved,
    string? Ipv6 = null);

/// <summary>An address of a device of a VM.</summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Mac">MAC address of the device, lower case.</param>
/// <param name="Address">The IPv4 address, which tells the other.</param>
internal sealed record NetworkReservation(string Vm, string Mac, string Address);

/// <summary>JSON of what is stored.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(NetworkRecord))]
internal sealed partial class NetworkJson : JsonSerializerContext;
