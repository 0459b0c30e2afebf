namespace Vmm.Spec.Tests;

/// <summary>A disk is said in the short form, or as what it is made of: both are the same disk.</summary>
public sealed class DiskFormTests
{
    [Fact]
    public void Source_and_front_say_what_the_short_form_says()
    {
        DiskSpec brief = Read("{path: a.raw, cache: buffered, serial: S, queues: 2, queueSize: 64, logicalBlockSize: 4096, "
            + "transport: mmio, readOnly: true, vnode: 0}");
        DiskSpec whole = Read("{source: {kind: raw, path: a.raw, cache: buffered}, front: {kind: virtio-blk, serial: S, queues: 2, "
            + "queueSize: 64, logicalBlockSize: 4096, transport: mmio}, readOnly: true, vnode: 0}");
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
    [InlineData("{path: a, onError: {noSpace: stop}}", "disks[0].onError.noSpace", "expected one of report, pause")]
    [InlineData("{path: a, logicalBlockSize: 1024}", "disks[0].logicalBlockSize", "1024, expected 512 or 4096")]
    [InlineData("{path: a, logicalBlockSize: 8192}", "disks[0].logicalBlockSize", "expected a number from 512 to 4096")]
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

    [Fact]
    public void What_happens_on_errors_has_defaults_of_its_own()
    {
        Assert.Null(Read("{path: a}").OnError);
        Assert.Equal(new OnErrorSpec { Io = FaultPolicy.Pause }, Read("{path: a, onError: {io: pause}}").OnError);
        Assert.Equal((FaultPolicy.Pause, FaultPolicy.Report), (new OnErrorSpec().NoSpace, new OnErrorSpec().Io));
        DiskSpec disk = Read("{path: a, onError: {noSpace: report}}");
        Assert.Equal(disk, VmSpecJson.TryReadDisk(VmSpecJson.Write(disk), out _));
    }

    [Fact]
    public void A_format_is_said_in_either_form_and_a_file_is_raw_otherwise_whatever_it_is_called()
    {
        Assert.Equal(DiskFormat.Raw, Read("{path: a.qcow2}").Format);
        Assert.Equal(DiskFormat.Raw, Read("{path: a.qcow2, format: raw}").Format);
        Assert.Equal(DiskFormat.Qcow2, Read("{path: a.img, format: qcow2}").Format);
        Assert.Equal(Read("{path: a.img, format: qcow2}"), Read("{source: {path: a.img, format: qcow2}}"));
        DiskSpec disk = Read("{path: a.img, format: qcow2}");
        Assert.Contains("\"format\":\"Qcow2\"", VmSpecJson.Write(disk).GetRawText(), StringComparison.Ordinal);
        Assert.Equal(disk, VmSpecJson.TryReadDisk(VmSpecJson.Write(disk), out _));
    }

    [Fact]
    public void The_images_below_travel_to_a_worker_and_are_no_part_of_a_spec_file()
    {
        DiskSpec disk = Read("{path: a.img, format: qcow2}") with
        {
            Backing = [new BackingSpec("/base.img", DiskFormat.Qcow2), new BackingSpec("/root.img", DiskFormat.Raw)],
        };
        Assert.Equal(disk.Backing, VmSpecJson.TryReadDisk(VmSpecJson.Write(disk), out _)!.Backing);
        Assert.Throws<SpecException>(() => Read("{path: a.img, format: qcow2, backing: []}"));
    }

    [Theory]
    [InlineData("""{"path":"/a","format":"Raw","backing":[{"path":"/b","format":"Raw"}]}""", "needs format: qcow2")]
    [InlineData("""{"path":"/a","format":"Qcow2","backing":[{"path":"","format":"Raw"}]}""", "has no path")]
    [InlineData("""{"path":"/a","format":"Qcow2","backing":[null]}""", "has no path")]
    [InlineData("""{"path":"/a","format":"Qcow2","backing":[{"path":"/b","format":7}]}""", "is of no known format")]
    [InlineData("""{"path":"/a","format":9}""", "is of no known format")]
    public void Images_below_that_cannot_be_are_refused(string json, string problem)
    {
        string whole = json[..^1] + ""","queues":1,"queueSize":256}""";
        using System.Text.Json.JsonDocument document = System.Text.Json.JsonDocument.Parse(whole);
        Assert.Null(VmSpecJson.TryReadDisk(document.RootElement, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    private static DiskSpec Read(string disk) => SpecReader.Read(
        $"boot: {{kernel: k}}\ndisks:\n  - {disk}\nnuma: {{vnodes: [{{cpus: 0, memory: 64MiB}}]}}\n", "t.yaml", "/specs").Disks[0];
}
