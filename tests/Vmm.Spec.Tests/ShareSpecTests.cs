namespace Vmm.Spec.Tests;

/// <summary>Shared folders of a spec.</summary>
public sealed class ShareSpecTests
{
    private const string Boot = "boot: {kernel: /k}\n";

    [Fact]
    public void A_folder_is_beside_the_spec_and_called_by_its_name()
    {
        VmSpec spec = SpecReader.Read(
            Boot + "shares:\n- {path: data/}\n- {path: /srv/web, tag: www, readOnly: true}\n", "spec", "/home");
        Assert.Equal(
            [new ShareSpec { Path = "/home/data/" }, new ShareSpec { Path = "/srv/web", Tag = "www", ReadOnly = true }], spec.Shares);
        Assert.Equal(["data", "www"], spec.Shares.Select(s => s.EffectiveTag));
        Assert.Equal(3, DeviceCount.Pci(spec)); // with the random numbers
    }

    [Theory]
    [InlineData("shares: [{tag: a}]", "shares[0].path", "is missing")]
    [InlineData("shares: [{path: /}]", "shares[0].tag", "\"\", the folder's name, is no tag")]
    [InlineData("shares: [{path: /a, tag: ''}]", "shares[0].tag", "\"\", expected 1 to 36 bytes")]
    [InlineData("shares: [{path: /a, tag: \"a\\tb\"}]", "shares[0].tag", "without control characters")]
    [InlineData("shares: [{path: /a, tag: ääääääääääääääääääää}]", "shares[0].tag", "expected 1 to 36 bytes")]
    [InlineData("shares: [{path: /a/x}, {path: /b/x}]", "shares[1].tag", "x is the tag of shares[0] too")]
    [InlineData("shares: [{path: /a, cache: none}]", "shares[0].cache", "unknown field; known here: path, tag, readOnly")]
    [InlineData("shares: [{path: /a}]\ndevices: [{kind: pmem, path: /p}]", "shares", "stand beside a pmem device")]
    public void What_is_wrong_is_named_with_its_place(string text, string path, string message)
    {
        SpecProblem problem = Assert.Single(Assert.Throws<SpecException>(() => SpecReader.Read(Boot + text + "\n", "spec", null)).Problems);
        Assert.Equal(path, problem.Path);
        Assert.Contains(message, problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void There_are_at_most_eight()
    {
        string Shares(int count) => Boot + "shares:\n" + string.Concat(Enumerable.Range(0, count).Select(i => $"- {{path: /a{i}}}\n"));
        Assert.Equal(8, SpecReader.Read(Shares(8), "spec", null).Shares.Count);
        Assert.Contains(
            "at most 8", Assert.Throws<SpecException>(() => SpecReader.Read(Shares(9), "spec", null)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void They_travel_to_the_worker_whole_and_a_worker_that_knows_none_hears_of_none()
    {
        VmSpec spec = SpecReader.Read(Boot + "shares: [{path: /a, tag: t, readOnly: true}]\n", "spec", null);
        Assert.Equal(spec.Shares, VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem)?.Shares);
        Assert.Equal("", problem);
        Assert.False(VmSpecJson.Write(spec with { Shares = [] }).TryGetProperty("shares", out _));
        Assert.Null(VmSpecJson.TryRead(System.Text.Json.JsonSerializer.SerializeToElement(new { shares = new object?[] { null } }), out _));
    }

    [Fact]
    public void On_the_command_line_the_path_comes_first()
    {
        Assert.True(SpecOption.TryParseShare("/srv/data,ro,tag=data", out ShareSpec share, out _));
        Assert.Equal(new ShareSpec { Path = "/srv/data", Tag = "data", ReadOnly = true }, share);
        Assert.False(SpecOption.TryParseShare(",ro", out _, out string problem));
        Assert.Equal("the path comes first", problem);
        Assert.False(SpecOption.TryParseShare("/srv,rw", out _, out problem));
        Assert.Contains("rw: unknown", problem, StringComparison.Ordinal);
        Assert.Equal("[,tag=T][,ro]", SpecOption.Form("shares"));
    }
}
