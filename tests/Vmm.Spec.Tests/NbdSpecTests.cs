using System.Text.Json;

namespace Vmm.Spec.Tests;

/// <summary>Disks of NBD servers in a spec: every form says the same disk, and mistakes are named.</summary>
public sealed class NbdSpecTests
{
    [Fact]
    public void Short_and_long_form_and_command_line_are_one_disk()
    {
        DiskSpec brief = Read("{nbd: {host: storage1, port: 10810, export: web/1}, readOnly: true}");
        Assert.Equal("nbd://storage1:10810/web/1", brief.Path);
        Assert.Equal(brief, Read("{source: {kind: nbd, nbd: {host: storage1, port: 10810, export: web/1}}, readOnly: true}"));
        Assert.True(SpecOption.TryParseDisk("nbd://storage1:10810/web/1,ro", out DiskSpec option, out _));
        Assert.Equal(brief, option);
        Assert.Equal(NbdSpec.UsualPort, Read("{nbd: {host: a}}").Nbd!.Port);
    }

    [Theory]
    [InlineData("nbd://h/")]
    [InlineData("nbd://h:1/a%20b")]
    [InlineData("nbds://[2001:db8::1]:99/x/y")]
    [InlineData("nbd+unix:///e?socket=/run/a%26b.sock")]
    [InlineData("nbd+unix:///?socket=/run/nbd.sock")]
    public void A_URI_is_written_as_it_was_read(string uri)
    {
        Assert.True(NbdUri.TryRead(uri, out NbdSpec nbd, out string problem), problem);
        Assert.Equal(uri, nbd.Uri);
    }

    [Theory]
    [InlineData("nbd:///export", "the host is missing")]
    [InlineData("nbd://h:0/", "no port")]
    [InlineData("nbd://h:x/", "no port")]
    [InlineData("nbd+unix:///e", "socket=PATH is missing")]
    [InlineData("nbd+unix://h/e?socket=/s", "a unix socket has no host")]
    [InlineData("nbd://h/e?socket=/s", "socket belongs to nbd+unix")]
    [InlineData("nbd://h/e?tls-psk-file=/s", "unknown in this URI")]
    public void A_URI_that_is_none_is_refused(string uri, string problem)
    {
        Assert.False(SpecOption.TryParseDisk(uri, out _, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_field_is_read_and_travels_and_is_written_again()
    {
        DiskSpec disk = Read("{nbd: {socket: s.sock, export: e, tls: {psk: keys, user: me, verify: false}, reconnect: 0, timeout: 5, "
            + "unflushed: trust}, onError: {io: pause}}");
        Assert.Equal(new NbdSpec
        {
            Socket = "/specs/s.sock",
            Export = "e",
            Tls = new NbdTlsSpec { Psk = "/specs/keys", User = "me", Verify = false },
            Reconnect = 0,
            Timeout = 5,
            Unflushed = UnflushedPolicy.Trust,
        }, disk.Nbd);
        Assert.Equal(disk, VmSpecJson.TryReadDisk(VmSpecJson.Write(disk), out _));
        Assert.Equal(disk, Read(SpecEdit.Item(disk)));
    }

    [Theory]
    [InlineData("{path: a, nbd: {host: h}}", "disks[0].path", "nbd is given")]
    [InlineData("{nbd: {host: h}, path: a}", "disks[0].path", "nbd is given")]
    [InlineData("{nbd: {}}", "disks[0].nbd", "one of host and socket")]
    [InlineData("{nbd: {host: h, socket: s}}", "disks[0].nbd", "one of host and socket")]
    [InlineData("{nbd: {host: 'a b'}}", "disks[0].nbd.host", "expected a host name")]
    [InlineData("{nbd: {host: h, port: 65536}}", "disks[0].nbd.port", "1 to 65535")]
    [InlineData("{nbd: {host: h, tls: {}}}", "disks[0].nbd.tls", "one of certificates and psk")]
    [InlineData("{nbd: {host: h, tls: {certificates: c, user: u}}}", "disks[0].nbd.tls.user", "pre-shared key")]
    [InlineData("{nbd: {host: h}, format: qcow2}", "disks[0].format", "let the server read it")]
    [InlineData("{nbd: {host: h}, cache: buffered}", "disks[0].cache", "is of files")]
    [InlineData("{source: {kind: nbd}}", "disks[0].source.path", "is missing")]
    public void A_mistake_is_named(string disk, string path, string message)
    {
        SpecException refused = Assert.Throws<SpecException>(() => Read(disk));
        Assert.Contains(refused.Problems,
            p => string.Equals(p.Path, path, StringComparison.Ordinal) && p.Message.Contains(message, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("""{"host":"other","port":10809,"export":"","reconnect":1,"timeout":1}""", "nbd is given")]
    [InlineData("""{"host":"h","port":0,"export":"","reconnect":1,"timeout":1}""", "nbd")]
    [InlineData("""{"host":"h","port":10809,"export":"","reconnect":1,"timeout":1,"unflushed":9}""", "fail or trust")]
    [InlineData("""{"host":"h","port":10809,"reconnect":1,"timeout":1}""", "lacks a member")]
    public void What_a_frame_says_is_checked_as_well(string json, string problem)
    {
        using JsonDocument document = JsonDocument.Parse(
            """{"path":"nbd://h/","cache":"Direct","queues":1,"queueSize":256,"nbd":""" + json + "}");
        Assert.Null(VmSpecJson.TryReadDisk(document.RootElement, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    private static DiskSpec Read(string disk) => SpecReader.Read(
        $"boot: {{kernel: k}}\ndisks:\n  - {disk}\nnuma: {{vnodes: [{{cpus: 0, memory: 64MiB}}]}}\n", "t.yaml", "/specs").Disks[0];
}
