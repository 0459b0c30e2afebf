using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Balancer;

/// <summary>What the guest agent answers to <c>{"v":1,"get":"memory"}</c> (deploy/guest-agent/README.md).</summary>
/// <param name="V">Version, 1.</param>
/// <param name="Nodes">The guest's NUMA nodes.</param>
/// <param name="Some">PSI: percent of the last ten seconds in which some task waited for memory; null without PSI.</param>
/// <param name="Full">The same for all tasks at once.</param>
internal sealed record AgentReport(int V, IReadOnlyList<AgentNode> Nodes, double? Some = null, double? Full = null)
{
    private const int MostNodes = 1024;
    private const ulong MostBytes = 1UL << 52;

    /// <summary>Reads a line of a guest, which may say anything; null when it is not a sound report.</summary>
    internal static AgentReport? TryRead(ReadOnlySpan<byte> line)
    {
        try
        {
            AgentReport? report = JsonSerializer.Deserialize(line, AgentJson.Default.AgentReport);
            return report is { V: 1, Nodes: { Count: > 0 and <= MostNodes } nodes } && report.Some is null or (>= 0 and <= 100)
                && report.Full is null or (>= 0 and <= 100)
                && nodes.All(n => n is not null && n.Node is >= 0 and < MostNodes && n.Total <= MostBytes && n.Available <= n.Total
                    && n.Free <= n.Total)
                && nodes.DistinctBy(n => n.Node).Count() == nodes.Count
                ? report : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>One NUMA node of the guest, in bytes.</summary>
/// <param name="Node">The guest's number of it.</param>
/// <param name="Total">Memory.</param>
/// <param name="Free">Free memory.</param>
/// <param name="Available">Free memory, and what the guest could take from its caches.</param>
internal sealed record AgentNode(int Node, ulong Total, ulong Free, ulong Available);

/// <summary>JSON of the agent.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    MaxDepth = 8)]
[JsonSerializable(typeof(AgentReport))]
internal sealed partial class AgentJson : JsonSerializerContext;
