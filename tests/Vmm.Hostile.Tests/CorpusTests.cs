using Vmm.Testing;

namespace Vmm.Hostile.Tests;

/// <summary>
/// The kept inputs of tests/fuzz-devices, and mutations of them: what coverage-guided runs found interesting is fed in every run of the
/// tests.
/// </summary>
public sealed class CorpusTests
{
    private static string Seeds => Path.Combine(Tree.Root, "tests", "fuzz-devices", "seeds");

    public static TheoryData<string> Targets => [.. FuzzTargets.Names];

    [Theory]
    [MemberData(nameof(Targets))]
    public void Kept_inputs(string target)
    {
        string[] files = Directory.GetFiles(Path.Combine(Seeds, target));
        Assert.NotEmpty(files);
        using IFuzzTarget device = FuzzTargets.Create(target);
        foreach (string file in files)
        {
            device.Feed(File.ReadAllBytes(file));
        }

        device.Heal();
    }

    /// <summary>The sound request that each target begins with is answered as one.</summary>
    [Theory]
    [MemberData(nameof(Targets))]
    public void A_seed_is_an_input_and_the_device_heals(string target)
    {
        using IFuzzTarget device = FuzzTargets.Create(target);
        device.Feed(device.Seed());
        device.Heal();
    }

    [Theory]
    [Trait("Kind", "fuzz")]
    [MemberData(nameof(Targets))]
    public void Mutations_of_kept_inputs(string target)
    {
        int iterations = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int n) ? n : 150;
        byte[][] inputs = [.. Directory.GetFiles(Path.Combine(Seeds, target)).Order(StringComparer.Ordinal).Select(File.ReadAllBytes)];
        Random random = new(12);
        using IFuzzTarget device = FuzzTargets.Create(target);
        for (int i = 0; i < iterations; i++)
        {
            byte[] input = [.. inputs[random.Next(inputs.Length)]];
            for (int flips = random.Next(1, 8); flips > 0 && input.Length > 0; flips--)
            {
                // Descriptors are at the front: that is where most of it is decided.
                int at = random.Next(3) == 0 ? random.Next(input.Length) : random.Next(Math.Min(input.Length, 32));
                input[at] = random.Next(3) switch
                {
                    0 => (byte)random.Next(256),
                    1 => (byte)(input[at] ^ (1 << random.Next(8))),
                    _ => (byte)(random.Next(2) * 255)
                };
            }

            device.Feed(random.Next(10) == 0 ? input.AsSpan(0, random.Next(input.Length + 1)) : input);
        }

        device.Heal();
    }
}
