using System.Text.Json;

namespace Vmm.Spec.Tests;

/// <summary>Disks of Ceph clusters in a spec: every form says the same disk, and mistakes are named.</summary>
public sealed class RbdSpecTests
{
    [Fact]
    public void Short_and_long_form_and_command_line_are_one_disk()
    {
        DiskSpec brief = Read("{rbd: {pool: vms, image: web1, user: vmm}, readOnly: true}");
        Assert.Equal("rbd:vms/web1?user=vmm", brief.Path);
        Assert.True(brief.IsRemote);
        Assert.Equal(SourceKind.Rbd, brief.Source.Kind);
        Assert.Equal(brief, Read("{source: {kind: rbd, rbd: {pool: vms, image: web1, user: vmm}}, readOnly: true}"));
        Assert.True(SpecOption.TryParseDisk("rbd:vms/web1?user=vmm,ro", out DiskSpec option, out _));
        Assert.Equal(brief, option);
        Assert.Equal("/etc/ceph/ceph.client.vmm.keyring", brief.Rbd!.KeyringFile);
        Assert.Equal("/etc/ceph/ceph.conf", brief.Rbd.Conf);
    }

    [Theory]
    [InlineData("rbd:p/i")]
    [InlineData("rbd:p/n/i")]
    [InlineData("rbd:a%20b/c%26d")]
    [InlineData("rbd:p/i?conf=/etc/ceph/b.conf&user=me&keyring=/k/a%3Fb")]
    public void A_URI_is_written_as_it_was_read(string uri)
    {
        Assert.True(RbdUri.TryRead(uri, out RbdSpec rbd, out string problem), problem);
        Assert.Equal(uri, rbd.Uri);
    }

    [Theory]
    [InlineData("rbd:pool", "expected rbd:POOL/IMAGE")]
    [InlineData("rbd:a/b/c/d", "expected rbd:POOL/IMAGE")]
    [InlineData("rbd:p/i?key=AQB", "key: unknown here")]
    public void A_URI_that_is_none_is_refused(string uri, string problem)
    {
        Assert.False(SpecOption.TryParseDisk(uri, out _, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("rbd:p", true)]
    [InlineData("rbd:p/n?user=vmm", true)]
    [InlineData("rbd:p/n/i", false)]
    [InlineData("rbd:", false)]
    [InlineData("p", false)]
    public void A_pool_is_read_as_settings_name_it(string text, bool isPool) =>
        Assert.Equal(isPool ? text : null, RbdUri.TryReadPool(text, out RbdSpec pool, out _) ? RbdUri.PoolOf(pool) : null);

    [Fact]
    public void Every_field_is_read_and_travels_and_is_written_again()
    {
        DiskSpec disk = Read("{rbd: {pool: p, namespace: n, image: i, conf: c.conf, user: me, keyring: k, reconnect: 0, timeout: 5}, "
            + "cache: buffered, onError: {io: pause}}");
        Assert.Equal(new RbdSpec
        {
            Pool = "p",
            Namespace = "n",
            Image = "i",
            Conf = "/specs/c.conf",
            User = "me",
            Keyring = "/specs/k",
            Reconnect = 0,
            Timeout = 5,
        }, disk.Rbd);
        Assert.Equal(disk, VmSpecJson.TryReadDisk(VmSpecJson.Write(disk), out _));
        Assert.Equal(disk, Read(SpecEdit.Item(disk)));
    }

    [Theory]
    [InlineData("{path: a, rbd: {pool: p, image: i}}", "disks[0].path", "rbd is given")]
    [InlineData("{rbd: {pool: p, image: i}, nbd: {host: h}}", "disks[0].rbd", "both given")]
    [InlineData("{rbd: {pool: p}}", "disks[0].rbd.image", "is missing")]
    [InlineData("{rbd: {image: i}}", "disks[0].rbd.pool", "is missing")]
    [InlineData("{rbd: {pool: p, image: i@s}}", "disks[0].rbd.image", "clone it")]
    [InlineData("{rbd: {pool: p/q, image: i}}", "disks[0].rbd.pool", "without a slash")]
    [InlineData("{rbd: {pool: p, image: i, user: client.a}}", "disks[0].rbd.user", "without client.")]
    [InlineData("{rbd: {pool: p, image: i, user: 'a b'}}", "disks[0].rbd.user", "a Ceph user")]
    [InlineData("{rbd: {pool: p, image: i, key: AQB}}", "disks[0].rbd.key", "unknown field")]
    [InlineData("{rbd: {pool: p, image: i}, format: qcow2}", "disks[0].format", "the RBD image is the disk")]
    [InlineData("{rbd: {pool: p, image: i, timeout: 0}}", "disks[0].rbd.timeout", "1 to 3600")]
    [InlineData("{source: {kind: rbd}}", "disks[0].source.path", "is missing")]
    public void A_mistake_is_named(string disk, string path, string message)
    {
        SpecException refused = Assert.Throws<SpecException>(() => Read(disk));
        Assert.True(refused.Problems.Any(
            p => string.Equals(p.Path, path, StringComparison.Ordinal) && p.Message.Contains(message, StringComparison.Ordinal)),
            string.Join('\n', refused.Problems));
    }

    [Theory]
    [InlineData("""{"pool":"p","namespace":"","image":"j","conf":"/c","user":"a","reconnect":1,"timeout":1}""", "rbd is given")]
    [InlineData("""{"pool":"p","namespace":"","image":"i","conf":"c","user":"a","reconnect":1,"timeout":1}""", "is given")]
    [InlineData("""{"pool":"p","image":"i","conf":"/c","user":"a","reconnect":1,"timeout":1}""", "lacks a member")]
    public void What_a_frame_says_is_checked_as_well(string json, string problem)
    {
        using JsonDocument document = JsonDocument.Parse(
            """{"path":"rbd:p/i?conf=/c&user=a","cache":"Direct","queues":1,"queueSize":256,"rbd":""" + json + "}");
        Assert.Null(VmSpecJson.TryReadDisk(document.RootElement, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    private static DiskSpec Read(string disk) => SpecReader.Read(
        $"boot: {{kernel: k}}\ndisks:\n  - {disk}\nnuma: {{vnodes: [{{cpus: 0, memory: 64MiB}}]}}\n", "t.yaml", "/specs").Disks[0];
}
