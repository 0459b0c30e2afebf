using Vmm.Cpu;

namespace Vmm.Spec;

/// <summary>The processor a guest sees.</summary>
public sealed record CpuSpec
{
    /// <summary>Most characters of an entry of <see cref="Features"/>.</summary>
    public const int LongestFeature = 64;

    /// <summary><c>host</c> for all that the host's KVM can show, or a named model (<see cref="CpuModel.Names"/>).</summary>
    public string Model { get; init; } = CpuModel.Host;

    /// <summary>Features added to the model (<c>+name</c>) and taken away (<c>-name</c>), in order.</summary>
    public IReadOnlyList<string> Features { get; init; } = [];

    /// <summary>As the model layer has it.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public CpuChoice Choice => new(Model, Features);

    /// <summary>The form of a command line: <c>MODEL[,+name][,-name]</c>.</summary>
    public static CpuSpec Parse(string text)
    {
        string[] parts = text.Split(',');
        return new CpuSpec { Model = parts[0], Features = [.. parts.Skip(1)] };
    }

    internal void Check(SpecComplaints check)
    {
        if (!CpuModel.Names.Contains(Model, StringComparer.Ordinal))
        {
            check.Require(false, "cpu.model", $"\"{Model}\", expected one of {string.Join(", ", CpuModel.Names)}");
        }

        HashSet<string> seen = new(StringComparer.Ordinal);
        for (int i = 0; i < Features.Count; i++)
        {
            string text = Features[i], path = $"cpu.features[{i}]";
            if (CpuChoice.Problem(text) is { } problem)
            {
                string? near = text.Length > 1 ? Names.Nearest(text[1..], CpuFeatures.All.Where(f => !f.IsMsr).Select(f => f.Name)) : null;
                bool unknown = text.Length > 1 && !CpuFeatures.TryGet(text[1..], out _);
                check.Require(
                    false, path, $"\"{text}\" {problem}{(unknown && near is not null ? $"; did you mean {text[0]}{near}?" : "")}");
            }
            else
            {
                check.Require(seen.Add(CpuFeatures.Get(text[1..]).Name), path, $"\"{text}\" is named twice");
            }
        }
    }
}
