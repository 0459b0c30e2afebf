using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using Xunit.Abstractions;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>Moves between real, confined workers, whose channels are socketpairs.</summary>
/// <param name="output">Hears how long the guest stood still.</param>
[Trait("Tier", "kvm")]
public sealed class MoveTests(ITestOutputHelper output) : IDisposable
{
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(30);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-moves-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData(DiskFormat.Raw, 0, 0, true)]
    [InlineData(DiskFormat.Raw, 0, 96, false)]
    [InlineData(DiskFormat.Qcow2, 2, 96, false)]
    [InlineData(DiskFormat.Qcow2, 2, 96, true)]
    public async Task A_vm_that_writes_its_disk_goes_on_in_another_worker_of_this_host(
        DiskFormat format, int pool, int mostMemory, bool passes)
    {
        await using WorkerFixture fixture = new(pool, Environment.IsPrivilegedProcess ? 2_100_000_100u : null);
        string disk = Path.Combine(_folder, "disk"), id = Guid.NewGuid().ToString();
        QemuImg.Run("create", "-f", format == DiskFormat.Raw ? "raw" : "qcow2", disk, "32M");
        VmSpec spec = SpecOf("blk", "requests=0") with
        {
            Disks = [new DiskSpec { Path = disk, Format = format }],
            MaxMemory = mostMemory == 0 ? null : ByteSize.MiB((ulong)mostMemory),
        };
        IWorker worker = await fixture.LaunchAsync(spec, id);
        await using Stream heard = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(heard, "DISK");
        for (int i = 0; i < 3; i++)
        {
            // Once given up behind the hand-over, then in earnest.
            await using (Move given = await BeginAsync(fixture, worker, id, spec, passes))
            {
                await given.StopAsync();
                Assert.Equal(VmState.Paused, worker.State);
                Assert.Contains("handed over", (await Assert.ThrowsAsync<WorkerException>(() => worker.ResumeAsync(Soon))).Message,
                    StringComparison.Ordinal);
                await worker.Moves.CancelAsync(Soon);
                Assert.Equal(VmState.Running, worker.State);
                Assert.Equal(MoveStage.None, (await worker.Moves.StatusAsync(Soon)).Stage);
            }

            await using Move move = await BeginAsync(fixture, worker, id, spec, passes);
            MoveInfo stopped = await move.StopAsync();
            Assert.Equal((MoveStage.HandedOver, 0UL), (stopped.Stage, stopped.LeftBytes));
            Assert.True(await worker.Moves.CanPassMemoryAsync());
            Assert.True(!passes || stopped.SentBytes < 1 << 20, $"{stopped.SentBytes} bytes were sent of memory that was passed");
            output.WriteLine($"{stopped.SentBytes} bytes in {stopped.Round - 1} rounds; at rest {stopped.DowntimeMilliseconds:0.0} ms");
            IWorker next = fixture.Own(await move.Incoming.CompleteAsync(Soon));
            Assert.Equal(VmState.Starting, next.State);
            Assert.Equal(worker.Confinement!.Missing, next.Confinement!.Missing);
            Assert.Equal(worker.Confinement.Applied, next.Confinement.Applied);
            await worker.StopAsync(Soon);
            next.TakeNames();
            await next.StartAsync(Soon);
            worker = next;
        }

        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await console.WriteAsync("q"u8.ToArray(), Soon);
        await ReadUntilAsync(console, "verify=ok");
        WorkerExit end = await worker.Ended.WaitAsync(Soon);
        Assert.Equal((ExitReason.DebugExit, 0), (end.Reason, end.ExitCode));
        if (format == DiskFormat.Qcow2)
        {
            QemuImg.Run("check", disk);
        }
    }

    [KvmFact]
    public async Task A_paused_vm_stays_paused_and_what_does_not_go_along_with_a_move_is_refused_by_name()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 2_100_000_120u : null);
        string id = Guid.NewGuid().ToString();
        VmSpec spec = SpecOf("dirty", "mib=8 base=33554432 rate=4000 seconds=0 tsc_khz=2500000") with { MaxMemory = ByteSize.MiB(96) };
        IWorker worker = await fixture.LaunchAsync(spec, id);
        await using Stream heard = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(heard, "READY dirty");
        await using Move move = await BeginAsync(fixture, worker, id, spec);
        foreach (Func<Task> other in new Func<Task>[]
        {
            () => worker.AddDiskAsync(new DiskSpec { Path = Path.Combine(_folder, "none") }, Soon),
            () => worker.MemoryAsync(new MemoryWish(Bytes: 1 << 20), Soon),
            () => worker.RehomeAsync(new RehomeBody(0, [0], [], null), Soon),
            () => worker.Moves.BeginAsync(new MoveBody(1, 100), [move.Spare], Soon),
        })
        {
            WorkerException refused = await Assert.ThrowsAsync<WorkerException>(other);
            Assert.True(refused.Message.Contains("being moved", StringComparison.Ordinal) || refused.Code == "disk-open-failed",
                refused.Message);
        }

        await worker.PauseAsync(Soon);
        await move.StopAsync();
        IWorker next = fixture.Own(await move.Incoming.CompleteAsync(Soon));
        Assert.Equal(VmState.Paused, next.State);
        await worker.StopAsync(Soon);
        next.TakeNames();
        await using Stream console = await next.OpenConsoleAsync(Soon);
        await next.ResumeAsync(Soon);
        Assert.Equal(VmState.Running, next.State);
        Assert.DoesNotContain("CORRUPT", await ReadUntilAsync(console, "TICK"), StringComparison.Ordinal);
    }

    [KvmFact]
    public async Task A_receiver_that_is_given_up_leaves_nothing_and_the_vm_goes_on()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 2_100_000_140u : null);
        string id = Guid.NewGuid().ToString();
        VmSpec spec = SpecOf("dirty", "mib=8 base=33554432 rate=4000 seconds=0 tsc_khz=2500000") with { MaxMemory = ByteSize.MiB(96) };
        IWorker worker = await fixture.LaunchAsync(spec, id);
        await using Stream heard = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(heard, "READY dirty");
        string[] names = Directory.GetFiles(fixture.Folder);
        await using (Move move = await BeginAsync(fixture, worker, id, spec))
        {
            await move.Incoming.DisposeAsync();
            MoveInfo failed = await move.AwaitAsync(MoveStage.Failed);
            Assert.NotEmpty(failed.Problem!);
            WorkerException why = await Assert.ThrowsAsync<WorkerException>(() => worker.Moves.StopAsync(s_long, Soon));
            Assert.Equal(ControlCodes.MoveFailed, why.Code);
        }

        Assert.Equal(names, Directory.GetFiles(fixture.Folder));
        await worker.Moves.CancelAsync(Soon);
        Assert.DoesNotContain("CORRUPT", await ReadUntilAsync(heard, "TICK"), StringComparison.Ordinal);
        Assert.Equal(VmState.Running, worker.State);
    }

    private static async Task<Move> BeginAsync(WorkerFixture fixture, IWorker worker, string id, VmSpec spec, bool passes = false)
    {
        Move move = new(worker);
        try
        {
            move.Incoming = await fixture.Launcher.ReceiveAsync(id, Guid.NewGuid().ToString("N"), spec, move.Receive, Soon);
            await worker.Moves.BeginAsync(new MoveBody(Move.Channels, 300, PassMemory: passes), move.Send, Soon);
            return move;
        }
        catch
        {
            await move.DisposeAsync();
            throw;
        }
    }

    /// <summary>One move, with its channels.</summary>
    private sealed class Move : IAsyncDisposable
    {
        internal const int Channels = 2;

        private readonly IWorker _from;

        internal Move(IWorker from)
        {
            _from = from;
            for (int i = 0; i < Channels; i++)
            {
                (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
                Send.Add(own);
                Receive.Add(theirs);
            }

            (UnixStream spare, FileDescriptorHandle other) = UnixStream.CreatePair();
            other.Dispose();
            Spare = spare;
        }

        internal List<FileDescriptorHandle> Send { get; } = [];

        internal List<FileDescriptorHandle> Receive { get; } = [];

        internal FileDescriptorHandle Spare { get; }

        internal IIncomingWorker Incoming { get; set; } = null!;

        internal async Task<MoveInfo> AwaitAsync(MoveStage stage)
        {
            Close(); // as vmmd does once they were passed
            while (true)
            {
                MoveInfo now = await _from.Moves.StatusAsync(Soon);
                if (now.Stage == stage)
                {
                    return now;
                }

                Assert.True(now.Stage != MoveStage.Failed, now.Problem);
                await Task.Delay(5);
            }
        }

        internal async Task<MoveInfo> StopAsync()
        {
            await AwaitAsync(MoveStage.Converged);
            MoveInfo stopped = await _from.Moves.StopAsync(s_long, Soon);
            ReceiveInfo there = await Incoming.StatusAsync(Soon);
            Assert.True(there.Stage == ReceiveStage.Complete, there.Problem);
            return stopped;
        }

        public async ValueTask DisposeAsync()
        {
            Close();
            Spare.Dispose();
            if (Incoming is not null)
            {
                await Incoming.DisposeAsync();
            }
        }

        private void Close()
        {
            Send.ForEach(channel => channel.Dispose());
            Receive.ForEach(channel => channel.Dispose());
        }
    }
}
