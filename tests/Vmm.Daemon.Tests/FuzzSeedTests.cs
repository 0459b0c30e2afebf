using Vmm.Fuzz;
using Vmm.Testing;

namespace Vmm.Daemon.Tests;

/// <summary>The seeds of the coverage-guided fuzzer, and what it once found, as ordinary inputs.</summary>
public sealed class FuzzSeedTests
{
    public static TheoryData<string> Names => [.. Targets.All.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    [Trait("Kind", "fuzz")]
    public void Every_seed_of_a_target_is_taken(string target)
    {
        string[] seeds = Directory.GetFiles(Path.Combine(Tree.Root, "tests/fuzz/seeds", target));
        Assert.NotEmpty(seeds);
        Assert.All(seeds, file => Targets.All[target](File.ReadAllBytes(file)));
    }
}
