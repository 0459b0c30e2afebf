using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>Workers of earlier and later releases at the daemon's end of the control channel.</summary>
public sealed class PeerVersionTests : IDisposable
{
    private const string Bounds = """{"applied":[],"missing":[]}""";

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-p-").FullName, _id = Guid.NewGuid().ToString();

    private static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(20)).Token;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Version 1, which says none, and 2, whose readers refuse members that they do not know.</summary>
    [Theory]
    [InlineData("")]
    [InlineData(""","version":2,"features":["many-descriptors"]""")]
    [InlineData(""","version":3,"features":[]""")]
    public async Task A_worker_of_an_earlier_version_is_adopted(string version)
    {
        await using HostileWorker worker = Hello($$"""{"vmId":"{{_id}}","state":"Paused","confinement":{{Bounds}}{{version}}}""");
        worker.Worker.Greet(Files, Soon);
        Assert.True(await worker.Worker.Greeted.WaitAsync(Soon));
        Assert.Equal(VmState.Paused, worker.Worker.State);
    }

    [Fact]
    public async Task A_worker_of_a_later_version_is_adopted_and_what_this_daemon_does_not_know_is_ignored()
    {
        await using HostileWorker worker = new(_folder, _id)
        {
            Body = kind => kind switch
            {
                ControlKinds.Hello =>
                    $$"""
                    {"vmId":"{{_id}}","state":"Running","confinement":{"applied":[],"missing":[],"later":1},
                    "version":99,"features":["later"],"later":[1]}
                    """,
                ControlKinds.Stats => """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[],"nets":[],"later":{"a":[1]}}""",
                _ => null,
            },
        };
        worker.Worker.Greet(Files, Soon);
        Assert.True(await worker.Worker.Greeted.WaitAsync(Soon));
        worker.Send(0, "later-event", """{"later":1}""");
        worker.Send(0, ControlKinds.State, """{"state":"Paused","later":true}""");
        WorkerStats stats = await worker.Worker.GetStatsAsync(Soon);
        Assert.Equal(2, stats.ResidentBytes);
        Assert.Equal(VmState.Paused, worker.Worker.State);
    }

    [Fact]
    public async Task A_request_that_an_earlier_worker_does_not_know_says_that_the_worker_is_too_old()
    {
        await using HostileWorker worker = new(_folder, _id);
        worker.Answer = frame => frame.Kind is ControlKinds.Wake
            && worker.Send(frame.Id, ControlKinds.Error, """{"code":"unknown-kind","message":"this worker knows no \"wake\""}""");
        WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => worker.Worker.WakeAsync(Soon));
        Assert.Equal(ControlCodes.WorkerTooOld, refused.Code);
        Assert.Contains("\"wake\"", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Descriptors_that_need_several_packets_go_only_to_a_worker_that_takes_them()
    {
        (PacketSocket ours, PacketSocket theirs) = PacketSocket.CreatePair();
        using ControlClient client = new(ours, TimeSpan.FromSeconds(5), _ => { });
        using EventFd descriptor = new();
        string[] names = [.. Enumerable.Range(0, ControlCodec.MaxDescriptors + 1).Select(i => $"d{i}")];
        FileDescriptorHandle[] handles = [.. names.Select(_ => descriptor.Handle)];
        foreach (ControlPeer? peer in (ControlPeer?[])[null, new ControlPeer(1, []), new ControlPeer(99, ["later"])])
        {
            client.Peer = peer;
            WorkerException refused =
                await Assert.ThrowsAsync<WorkerException>(() => client.CallAsync(ControlKinds.Create, null, names, handles, Soon));
            Assert.Equal(ControlCodes.WorkerTooOld, refused.Code);
            Assert.Null(Next(theirs)); // not even the first part of it
        }

        client.Peer = ControlPeer.Of(new HelloRequest(2, [ControlVersion.ManyDescriptors]));
        Task<ControlClient.Answer> call = client.CallAsync(ControlKinds.Create, null, names, handles, Soon);
        Assert.Equal((ControlKinds.Create, 1), (Next(theirs) is { } first ? (first.Kind, first.MoreDescriptors) : default));
        Assert.Equal(ControlKinds.More, Next(theirs)?.Kind);
        theirs.Dispose();
        Assert.Equal(ControlCodes.WorkerDied, (await Assert.ThrowsAsync<WorkerException>(() => call)).Code);
    }

    /// <summary>One that does not know images would ignore the format, and give the guest the image's own bytes.</summary>
    [Theory]
    [InlineData("")]
    [InlineData(""","version":3,"features":["many-descriptors","saving"]""")]
    [InlineData(""","version":3,"features":["images"]""")]
    public async Task An_image_goes_only_to_a_worker_that_knows_what_that_is(string version)
    {
        string image = Path.Combine(_folder, "disk");
        Qcow2Creator.Create(image, new Qcow2CreateOptions { DiskSize = 1 << 20 });
        await using HostileWorker worker = new(_folder, _id)
        {
            Body = kind => kind is ControlKinds.Hello
                ? $$"""{"vmId":"{{_id}}","state":"Running","confinement":{{Bounds}}{{version}}}"""
                : null,
        };
        List<string> sent = [];
        worker.Answer = frame =>
        {
            sent.Add(frame.Kind);
            return false;
        };
        DiskSpec disk = new() { Path = image, Format = DiskFormat.Qcow2 };
        bool knows = version.Contains("images", StringComparison.Ordinal);
        WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => worker.Worker.AddDiskAsync(disk, Soon));
        Assert.Equal(!knows, refused.Code == ControlCodes.WorkerTooOld);
        Assert.Equal(knows, sent.Contains(ControlKinds.AddDevice, StringComparer.Ordinal));
    }

    private static ControlFrame? Next(PacketSocket socket)
    {
        byte[] buffer = new byte[ControlCodec.MaxFrame];
        PacketKind kind = socket.Receive(buffer, ControlCodec.MaxDescriptors, out int length, out FileDescriptorHandle[] descriptors);
        Array.ForEach(descriptors, d => d.Dispose());
        return kind is not PacketKind.Packet ? null
            : ControlCodec.TryDecode(buffer.AsSpan(0, length), descriptors.Length, out string problem)
                ?? throw new InvalidOperationException(problem);
    }

    private WorkerFiles Files => new(_folder, _id);

    private HostileWorker Hello(string body) => new(_folder, _id) { Body = kind => kind is ControlKinds.Hello ? body : null };
}
