namespace Vmm.Spec.Tests;

/// <summary>A disk is said in the short form, or as what it is made of: both are the same disk.</summary>
public sealed class DiskFormTests
{
    [Fact]
    public void Source_and_front_say_what_the_short_form_says()
    {
        DiskSpec brief =
            Read("{path: a.raw, cache: buffered, serial: S, queues: 2, queueSize: 64, transport: mmio, readOnly: true, vnode: 0}");
        DiskSpec whole = Read("{source: {kind: raw, path: a.raw, cache: buffered}, front: {kind: virtio-blk, serial: S, queues: 2, "
            + "queueSize: 64, transport: mmio}, readOnly: true, vnode: 0}");
        Assert.Equal(brief, whole);
        Assert.Equal("/specs/a.raw", whole.Path);
        Assert.Equal(Read("{path: a.raw, queues: 2}"), Read("{source: {path: a.raw}, front: {queues: 2}}"));
        Assert.Equal(Read("{path: a.raw, queues: 2}"), Read("{path: a.raw, front: {queues: 2}}"));
    }

    [Theory]
    [InlineData("{path: a, source: {path: a}}", "disks[0].path", "belongs into source")]
    [InlineData("{source: {path: a}, cache: direct}", "disks[0].cache", "belongs into source")]
    [InlineData("{path: a, queues: 1, front: {queues: 1}}", "disks[0].queues", "belongs into front")]
    [InlineData("{readOnly: true}", "disks[0].path", "is missing")]
    [InlineData("{source: {cache: direct}}", "disks[0].source.path", "is missing")]
    [InlineData("{source: {path: a, kind: qcow2}}", "disks[0].source.kind", "expected one of raw")]
    [InlineData("{source: {path: a}, front: {kind: scsi}}", "disks[0].front.kind", "expected one of virtio-blk")]
    [InlineData("{source: {path: a}, front: {queues: 65}}", "disks[0].front.queues", "expected a number from 1 to 64")]
    [InlineData("{source: {path: a}, front: {queueSize: 100}}", "disks[0].front.queueSize", "a power of two")]
    public void A_mistake_in_either_form_is_named(string disk, string path, string message)
    {
        SpecException refused = Assert.Throws<SpecException>(() => Read(disk));
        SpecProblem problem = Assert.Single(refused.Problems);
        Assert.Equal(path, problem.Path);
        Assert.Contains(message, problem.Message, StringComparison.Ordinal);
        Assert.Equal(3, problem.Line);
    }

    [Fact]
    public void JSON_between_daemon_and_worker_stays_what_older_ones_know()
    {
        DiskSpec disk = Read("{source: {path: a.raw}, front: {queues: 2}}");
        Assert.Equal(
            """{"readOnly":false,"path":"/specs/a.raw","cache":"Direct","queues":2,"queueSize":256}""",
            VmSpecJson.Write(disk).GetRawText());
        Assert.Equal(disk, VmSpecJson.TryReadDisk(VmSpecJson.Write(disk), out _));
    }

    private static DiskSpec Read(string disk) => SpecReader.Read(
        $"boot: {{kernel: k}}\ndisks:\n  - {disk}\nnuma: {{vnodes: [{{cpus: 0, memory: 64MiB}}]}}\n", "t.yaml", "/specs").Disks[0];
}
