using Vmm.Spec.Devices;

namespace Vmm.Spec.Tests;

/// <summary>Devices that another program serves, in the spec.</summary>
public sealed class VhostUserSpecTests
{
    private const string Boot = "boot: {kernel: /k}\n";

    [Fact]
    public void They_are_read_with_their_defaults_and_travel_to_the_worker()
    {
        VmSpec spec = SpecReader.Read(
            Boot + "devices:\n- {kind: vhost-user-blk, socket: run/a}\n"
                + "- {kind: vhost-user-net, socket: /b, mac: 52:54:00:00:00:01, mtu: 9000}\n",
            "spec", "/home");
        Assert.Equal(
        [
            new VhostUserBlkSpec { Socket = "/home/run/a" },
            new VhostUserNetSpec { Socket = "/b", Mac = "52:54:00:00:00:01", Mtu = 9000 },
        ], spec.Devices);
        Assert.Equal(["/home/run/a", "/b"], spec.Devices.Select(device => device.BackEnd));
        string json = VmSpecJson.Write(spec).GetRawText();
        Assert.DoesNotContain("backEnd", json, StringComparison.Ordinal); // it is the socket
        Assert.Equal(spec.Devices, VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem)?.Devices);
        Assert.Equal("", problem);
    }

    [Theory]
    [InlineData("devices: [{kind: vhost-user-blk}]", "devices[0].socket", "is missing")]
    [InlineData("devices: [{kind: vhost-user-blk, socket: ''}]", "devices[0].socket", "expected the path")]
    [InlineData("devices: [{kind: vhost-user-blk, socket: /a, queueSize: 100}]", "devices[0].queueSize", "expected a power of two")]
    [InlineData("devices: [{kind: vhost-user-blk, socket: /a, queues: 65}]", "devices[0].queues", "65")]
    [InlineData("devices: [{kind: vhost-user-net, socket: /a, mac: 01:00:00:00:00:01}]", "devices[0].mac", "the address of one device")]
    [InlineData("devices: [{kind: vhost-user-net, socket: /a, queueSize: 32}]", "devices[0].queueSize", "32")]
    [InlineData("devices: [{kind: vhost-user-blk, socket: /a}, {kind: vhost-user-net, socket: /a}]",
        "devices[1].socket", "another device's")]
    [InlineData("nets: [{tap: t, mac: 52:54:00:00:00:01}]\ndevices: [{kind: vhost-user-net, socket: /a, mac: 52:54:00:00:00:01}]",
        "devices[0].mac", "another device's")]
    [InlineData("devices: [{kind: pmem, path: /p}, {kind: vhost-user-blk, socket: /a}]", "devices[1]", "beside a pmem device")]
    [InlineData("memory: {size: 1GiB, resident: 50%}\ndevices: [{kind: vhost-user-blk, socket: /a}]",
        "devices[0]", "does not hear of the pager")]
    public void What_is_wrong_is_named_with_its_place(string text, string path, string problem)
    {
        SpecProblem found = Assert.Single(Assert.Throws<SpecException>(() => SpecReader.Read(Boot + text + "\n", "spec", null)).Problems);
        Assert.Equal(path, found.Path);
        Assert.Contains(problem, found.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_socket_has_a_name_that_a_socket_can_have() => Assert.Contains(
        "at most 107 bytes",
        Assert.Throws<SpecException>(() => SpecReader.Read(
            Boot + $"devices: [{{kind: vhost-user-blk, socket: /{new string('s', 107)}}}]\n", "spec", null)).Message,
        StringComparison.Ordinal);
}
