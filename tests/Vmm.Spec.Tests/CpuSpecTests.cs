namespace Vmm.Spec.Tests;

/// <summary>The field cpu.</summary>
public sealed class CpuSpecTests
{
    private const string Boot = "boot: {kernel: k}\n";

    [Fact]
    public void A_model_with_features_is_read_and_travels_as_json()
    {
        VmSpec spec = SpecReader.Read(Boot + "cpu:\n  model: x86-64-v2\n  features: [+aes, -sse4.2]\n", "spec", null);
        Assert.Equal(("x86-64-v2", "+aes -sse4.2"), (spec.Cpu!.Model, string.Join(' ', spec.Cpu.Features)));
        VmSpec? arrived = VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem);
        Assert.True(arrived is not null, problem);
        Assert.Equal(spec.Cpu.Model, arrived.Cpu!.Model);
        Assert.Equal(spec.Cpu.Features, arrived.Cpu.Features);
        Assert.Null(SpecReader.Read(Boot, "spec", null).Cpu);
        Assert.Equal("host", SpecReader.Read(Boot + "cpu: {features: [-avx]}\n", "spec", null).Cpu!.Model);
        Assert.Equal(("x86-64-v3", "-avx2"), (CpuSpec.Parse("x86-64-v3,-avx2").Model, CpuSpec.Parse("x86-64-v3,-avx2").Features[0]));
    }

    [Theory]
    [InlineData("{model: x86-64-v5}", "cpu.model", "did you mean x86-64-v")]
    [InlineData("{features: [avx]}", "cpu.features[0]", "expected +name or -name")]
    [InlineData("{features: [+avx3]}", "cpu.features[0]", "did you mean +avx")]
    [InlineData("{features: [-apic]}", "cpu.features[0]", "set by the machine itself")]
    [InlineData("{features: [+sse3, -pni]}", "cpu.features[1]", "named twice")]
    public void What_is_unsound_is_told_with_its_place(string cpu, string path, string message)
    {
        SpecProblem problem =
            Assert.Single(Assert.Throws<SpecException>(() => SpecReader.Read(Boot + $"cpu: {cpu}\n", "spec", null)).Problems);
        Assert.Equal((path, 2L), (problem.Path, problem.Line));
        Assert.Contains(message, problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_json_of_a_cpu_that_lacks_a_member_is_refused()
    {
        string json = VmSpecJson.Write(SpecReader.Read(Boot + "cpu: {model: host}\n", "spec", null)).GetRawText();
        using System.Text.Json.JsonDocument broken =
            System.Text.Json.JsonDocument.Parse(json.Replace("\"features\":[]", "\"features\":[null]", StringComparison.Ordinal));
        Assert.Null(VmSpecJson.TryRead(broken.RootElement, out _));
    }
}
