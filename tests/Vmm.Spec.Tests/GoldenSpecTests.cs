using System.Text.Json.Nodes;
using Vmm.Testing;

namespace Vmm.Spec.Tests;

/// <summary>Specs of earlier releases: each file of <c>golden</c> is read as it was then.</summary>
public sealed class GoldenSpecTests
{
    private static readonly string s_folder = Path.Combine(Tree.Root, "tests", "Vmm.Spec.Tests", "golden");

    public static TheoryData<string> Files =>
        [.. Directory.GetFiles(s_folder, "*.yaml").Select(file => Path.GetFileNameWithoutExtension(file))];

    [Theory]
    [MemberData(nameof(Files))]
    public void A_spec_of_an_earlier_release_means_what_it_meant(string name)
    {
        VmSpec spec = SpecReader.Read(File.ReadAllText(Path.Combine(s_folder, name + ".yaml")), name, "/specs");
        JsonNode now = JsonNode.Parse(VmSpecJson.Write(spec).GetRawText())!,
            then = JsonNode.Parse(File.ReadAllText(Path.Combine(s_folder, name + ".json")))!;
        Assert.True(Includes(now, then), $"{name}: expected all of {then.ToJsonString()}, got {now.ToJsonString()}");
    }

    /// <summary>Members that came later may be there beside those of then; what is null may be left out.</summary>
    private static bool Includes(JsonNode? now, JsonNode? then) => (now, then) switch
    {
        (JsonObject a, JsonObject b) =>
            b.All(member => (member.Value is null || a.ContainsKey(member.Key)) && Includes(a[member.Key], member.Value)),
        (JsonArray a, JsonArray b) => a.Count == b.Count && a.Zip(b).All(pair => Includes(pair.First, pair.Second)),
        _ => JsonNode.DeepEquals(now, then),
    };
}
