using System.Text.Json;
using System.Text.Json.Nodes;
using Vmm.Spec.Devices;

namespace Vmm.Spec.Tests;

/// <summary>The section of devices that are told apart by their kind.</summary>
public sealed class DevicesTests
{
    private const string Boot = "boot: {kernel: /k}\n";

    [Fact]
    public void A_kind_has_its_own_fields()
    {
        VmSpec spec = SpecReader.Read(
            Boot + "devices:\n- {kind: pmem, path: images/a.img, readOnly: true}\n- kind: pmem\n  path: /b\n", "spec", "/home");
        Assert.Equal([new PmemSpec { Path = "/home/images/a.img", ReadOnly = true }, new PmemSpec { Path = "/b" }], spec.Devices);
        Assert.Equal(new DeviceFile("image", "/b", Writable: true), Assert.Single(spec.Devices[1].Files));
        Assert.Empty(SpecReader.Read(Boot, "spec", null).Devices);
    }

    [Theory]
    [InlineData("devices: [{path: /a}]", 2, "devices[0].kind", "is missing, expected one of pmem, vhost-user-blk, vhost-user-net")]
    [InlineData("devices: [{kind: tape, path: /a}]", 2, "devices[0].kind",
        "\"tape\", expected one of pmem, vhost-user-blk, vhost-user-net")]
    [InlineData("devices: [{kind: {a: b}}]", 2, "devices[0].kind", "\"?\", expected one of pmem, vhost-user-blk, vhost-user-net")]
    [InlineData("devices: [pmem]", 2, "devices[0]", "expected fields (name: value)")]
    [InlineData("devices: pmem", 2, "devices", "expected a list")]
    [InlineData("devices: [{kind: pmem}]", 2, "devices[0].path", "is missing")]
    [InlineData("devices: [{kind: pmem, path: ''}]", 2, "devices[0].path", "is empty")]
    [InlineData(
        "devices: [{kind: pmem, path: /a, cache: direct}]", 2, "devices[0].cache", "unknown field; known here: kind, path, readOnly")]
    [InlineData("devices: [{kind: pmem, kind: pmem, path: /a}]", 2, "devices[0].kind", "given twice")]
    public void What_is_wrong_is_named_with_its_place(string text, int line, string path, string message)
    {
        SpecProblem problem = Assert.Single(Assert.Throws<SpecException>(() => SpecReader.Read(Boot + text + "\n", "spec", null)).Problems);
        Assert.Equal((line, path, message), (problem.Line, problem.Path, problem.Message));
    }

    [Fact]
    public void There_are_as_many_as_a_spec_may_have_and_no_more()
    {
        string Devices(int count) => Boot + "devices:\n" + string.Concat(Enumerable.Repeat("- {kind: pmem, path: /a}\n", count));
        Assert.Equal(SpecValidation.MaxDevices, SpecReader.Read(Devices(SpecValidation.MaxDevices), "spec", null).Devices.Count);
        Assert.Contains(
            "17 entries, at most 16",
            Assert.Throws<SpecException>(() => SpecReader.Read(Devices(17), "spec", null)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void They_travel_to_the_worker_whole()
    {
        VmSpec spec = SpecReader.Read(Boot + "devices: [{kind: pmem, path: /a, readOnly: true}]\n", "spec", null);
        Assert.Equal(spec.Devices, VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem)?.Devices);
        Assert.Equal("", problem);
    }

    [Theory]
    [InlineData("""[{"kind":"tape"}]""")]
    [InlineData("""[{"path":"/a"}]""")]
    [InlineData("""[{"kind":"pmem"}]""")]
    [InlineData("""[{"kind":"pmem","path":null}]""")]
    [InlineData("""[{"kind":7}]""")]
    [InlineData("[null]")]
    [InlineData("[[]]")]
    [InlineData("{}")]
    public void A_bad_frame_is_refused_and_nothing_else_happens(string devices)
    {
        JsonObject json = JsonNode.Parse(VmSpecJson.Write(SpecReader.Read(Boot, "spec", null)).GetRawText())!.AsObject();
        json["devices"] = JsonNode.Parse(devices);
        Assert.Null(VmSpecJson.TryRead(JsonSerializer.SerializeToElement(json), out string problem));
        Assert.NotEqual("", problem);
    }

    [Fact]
    public void A_frame_of_a_release_that_knew_none_has_none()
    {
        JsonObject json = JsonNode.Parse(VmSpecJson.Write(SpecReader.Read(Boot, "spec", null)).GetRawText())!.AsObject();
        Assert.False(json.ContainsKey("devices")); // it would refuse what it does not know
        Assert.Empty(VmSpecJson.TryRead(JsonSerializer.SerializeToElement(json), out _)!.Devices);
    }

    [Fact]
    public void The_schema_has_every_kind()
    {
        JsonNode items = JsonNode.Parse(SpecSchema.Json())!["properties"]!["devices"]!["items"]!;
        JsonArray kinds = items["oneOf"]!.AsArray();
        Assert.Equal(DeviceKinds.Names, kinds.Select(each => (string?)each!["properties"]!["kind"]!["enum"]![0]));
        JsonNode pmem = kinds[0]!;
        Assert.Equal("pmem", (string?)pmem["properties"]!["kind"]!["enum"]![0]);
        Assert.Contains("path", pmem["required"]!.AsArray().Select(n => (string?)n));
    }
}
