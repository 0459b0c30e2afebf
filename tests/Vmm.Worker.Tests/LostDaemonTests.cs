using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Reflection;
using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>Daemons that die at the wrong moment, and workers that hang or lose their connection: real processes.</summary>
[Trait("Tier", "kvm")]
public sealed class LostDaemonTests
{
    private static readonly DiskAccess s_everywhere = new(new StorageFolders(["/"], ["/dev"]));
    private static readonly string[] s_extra = [.. Enumerable.Range(0, 300).Select(i => $"extra{i}")];

    /// <summary>
    /// The daemon dies while the worker builds: the worker stands still for that long, as one does that takes many huge pages.
    /// </summary>
    [KvmFact]
    public async Task A_daemon_that_dies_while_a_vm_is_built_leaves_neither_a_worker_nor_a_locked_disk()
    {
        await using WorkerFixture fixture = new();
        string disk = Path.GetTempFileName(), id = Guid.NewGuid().ToString();
        try
        {
            await File.WriteAllBytesAsync(disk, new byte[1 << 20]);
            VmSpec spec = SpecOf("idle") with { Disks = [new DiskSpec { Path = disk }] };
            using ProcessHandle process = BeginCreate(fixture, id, spec);
            try
            {
                Assert.Empty(await fixture.RestartDaemonAsync()); // the new daemon finds nobody who listens
                Signal("CONT", process.ProcessId);
                await GoneAsync(process);
                IWorker next = await fixture.LaunchAsync(spec, id); // the disk is free, the names are
                Assert.Equal(VmState.Starting, next.State);
            }
            finally
            {
                process.Kill();
            }
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact]
    public async Task An_adopted_worker_that_hangs_delays_nobody_is_ended_and_its_vm_starts_again()
    {
        await using WorkerFixture fixture = new(change: options => options with { AnswerTimeout = TimeSpan.FromSeconds(8) });
        IWorker hung = await fixture.LaunchAsync(SpecOf("idle")), well = await fixture.LaunchAsync(SpecOf("idle"));
        await hung.StartAsync(Soon);
        await well.StartAsync(Soon);
        Signal("STOP", hung.ProcessId);
        Task<IReadOnlyList<IWorker>> adoption = fixture.RestartDaemonAsync();
        IReadOnlyList<IWorker> adopted = await adoption;
        IWorker again = adopted.Single(w => w.VmId == hung.VmId);
        Assert.False(again.Greeted.IsCompleted); // the daemon did not wait for that
        Assert.Equal(VmState.Running, adopted.Single(w => w.VmId == well.VmId).State);
        Assert.False(await again.Greeted.WaitAsync(Soon));
        WorkerExit exit = await again.Ended.WaitAsync(Soon);
        Assert.Equal(ExitReason.WorkerDied, exit.Reason);
        Assert.Contains("did not answer", exit.Message, StringComparison.Ordinal);
        Assert.False(Alive(hung.ProcessId));
        IWorker next = await fixture.LaunchAsync(SpecOf("idle"), hung.VmId);
        await next.StartAsync(Soon);
        await next.StopAsync(Soon);
        Assert.Equal(ExitReason.Stopped, (await next.Ended.WaitAsync(Soon)).Reason);
    }

    [KvmFact]
    public async Task A_hung_worker_whose_backlog_is_full_delays_no_daemon_either()
    {
        await using WorkerFixture fixture = new();
        IWorker hung = await fixture.LaunchAsync(SpecOf("idle"));
        Signal("STOP", hung.ProcessId);
        List<PacketSocket> waiting = [];
        try
        {
            for (int errno = 0; errno == 0;)
            {
                try
                {
                    waiting.Add(PacketSocket.Connect(Path.Combine(fixture.Folder, hung.VmId + ".sock")));
                    Assert.InRange(waiting.Count, 1, 1000);
                }
                catch (KernelException full)
                {
                    errno = full.Errno;
                    Assert.Equal(11, errno); // EAGAIN: connect(2) would wait for ever otherwise
                }
            }
        }
        finally
        {
            waiting.ForEach(socket => socket.Dispose());
            Signal("CONT", hung.ProcessId);
        }
    }

    [KvmFact]
    public async Task A_connection_that_is_lost_ends_no_vm_it_is_made_again()
    {
        await using WorkerFixture fixture = new(change: options => options with { StopTimeout = TimeSpan.FromSeconds(2) });
        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        await worker.StartAsync(Soon);
        await worker.PauseAsync(Soon);
        List<bool> told = [];
        worker.OnConnection(there =>
        {
            lock (told)
            {
                told.Add(there);
            }
        });
        for (int i = 1; i <= 2; i++)
        {
            BreakConnection(worker);
            while (Count(told) < 2 * i)
            {
                await Task.Delay(20, Soon);
            }
        }

        Assert.Equal([false, true, false, true], told);
        await Task.Delay(fixture.Options.StopTimeout + TimeSpan.FromSeconds(1)); // longer than it was given to end
        Assert.True(Alive(worker.ProcessId));
        await worker.ResumeAsync(Soon);
        Assert.Equal(VmState.Running, worker.State);
        await worker.StopAsync(Soon);
        Assert.Equal(ExitReason.Stopped, (await worker.Ended.WaitAsync(Soon)).Reason);

        static int Count(List<bool> told)
        {
            lock (told)
            {
                return told.Count;
            }
        }
    }

    [KvmFact]
    public async Task A_connection_that_is_lost_before_the_worker_said_hello_to_a_new_daemon_is_made_again()
    {
        await using WorkerFixture fixture = new(change: options => options with { StopTimeout = TimeSpan.FromSeconds(2) });
        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        await worker.StartAsync(Soon);
        Signal("STOP", worker.ProcessId);
        IWorker adopted = Assert.Single(await fixture.RestartDaemonAsync());
        Assert.False(adopted.Greeted.IsCompleted);
        BreakConnection(adopted);
        await Task.Delay(200, Soon);
        Signal("CONT", worker.ProcessId);
        Assert.True(await adopted.Greeted.WaitAsync(Soon));
        await Task.Delay(fixture.Options.StopTimeout + TimeSpan.FromSeconds(1)); // longer than one that is not needed is given
        await adopted.PauseAsync(Soon);
        Assert.Equal(VmState.Paused, adopted.State);
    }

    [KvmFact]
    public async Task A_worker_without_a_free_descriptor_goes_on_and_takes_the_connection_when_it_has_one()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        await worker.StartAsync(Soon);
        int most = Directory.GetFiles($"/proc/{worker.ProcessId}/fd")
            .Select(Path.GetFileName)
            .Max(name => int.Parse(name!, CultureInfo.InvariantCulture));
        LimitDescriptors(worker.ProcessId, 3); // none of those it has is closed, none can be made
        BreakConnection(worker);
        await Task.Delay(3000, Soon);
        Assert.True(Alive(worker.ProcessId));
        TaskCompletionSource back = new();
        worker.OnConnection(there =>
        {
            if (there)
            {
                back.TrySetResult();
            }
        });
        LimitDescriptors(worker.ProcessId, most + 50);
        await back.Task.WaitAsync(Soon);
        await worker.PauseAsync(Soon);
        Assert.Equal(VmState.Paused, worker.State);
    }

    [KvmFact]
    public async Task A_worker_that_lost_its_daemon_once_is_killed_when_it_does_not_end_as_told()
    {
        await using WorkerFixture fixture = new(change: options => options with { StopTimeout = TimeSpan.FromSeconds(2) });
        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        await worker.StartAsync(Soon);
        Signal("STOP", worker.ProcessId);
        await worker.StopAsync(Soon);
        Assert.Equal(ExitReason.WorkerDied, (await worker.Ended.WaitAsync(Soon)).Reason);
    }

    [KvmFact]
    public async Task A_frame_that_the_worker_cannot_read_costs_that_frame_only()
    {
        await using WorkerFixture fixture = new();
        (PacketSocket ours, ProcessHandle process) = Spawn(fixture);
        using ProcessHandle ended = process;
        using (ours)
        {
            foreach (byte[] nonsense in (byte[][])
            [
                [1, 2, 3], ControlCodec.Encode(new ControlFrame { Id = 1, Kind = ControlKinds.More }),
                [.. ControlCodec.Encode(new ControlFrame { Id = 2, Kind = "x" }), 0]
            ])
            {
                ours.Send(nonsense, [], 1000);
                Assert.Equal("bad-frame", Error(await ReceiveAsync(ours)));
            }

            ours.Send(ControlCodec.Encode(new ControlFrame { Id = 3, Kind = ControlKinds.Hello }), [], 1000);
            ControlFrame hello = await ReceiveAsync(ours);
            Assert.Equal((3, ControlKinds.Ok), (hello.Id, hello.Kind));
            // Who does not say its version is one that knows no such member
            Assert.DoesNotContain("version", hello.Body!.Value.GetRawText(), StringComparison.Ordinal);
            HelloRequest newer = new(99, ["what-this-one-does-not-know"]);
            ours.Send(
                ControlCodec.Encode(new ControlFrame
                {
                    Id = 4,
                    Kind = ControlKinds.Hello,
                    Body = ControlCodec.Body(newer, ControlJson.Default.HelloRequest)
                }),
                [],
                1000);
            Assert.True(ControlCodec.TryBody(await ReceiveAsync(ours), ControlJson.Default.HelloBody, out HelloBody? body, out _));
            Assert.Equal(ControlVersion.Current, body!.Version);
            Assert.Contains(ControlVersion.ManyDescriptors, body.Features!);
        }

        await GoneAsync(process);
    }

    [KvmFact]
    public async Task A_vm_gets_more_descriptors_than_one_packet_carries()
    {
        await using WorkerFixture fixture = new();
        RemoteWorker worker = fixture.Launcher.Processes.Spawn();
        string id = Guid.NewGuid().ToString();
        WorkerFiles files = new(fixture.Folder, id);
        worker.Assign(files);
        using WorkerResources resources = WorkerResources.Open(SpecOf("idle"), s_everywhere);
        foreach (string name in s_extra)
        {
            resources.Add(name, new EventFd().Handle);
        }

        AddNames(files, resources);
        await worker.CreateAsync(new CreateBody(id, null, VmSpecJson.Write(SpecOf("idle"))), resources, TimeSpan.Zero, Soon);
        await worker.StartAsync(Soon);
        // What it did not ask for is closed: it has no more descriptors than another.
        Assert.InRange(Directory.GetFiles($"/proc/{worker.ProcessId}/fd").Length, 10, 200);
        await worker.StopAsync(Soon);
        await worker.DisposeAsync();
    }

    [KvmFact]
    public async Task A_worker_of_the_pool_that_died_is_let_go_whole_and_costs_no_user()
    {
        await using WorkerFixture fixture = new(pool: 1, firstUser: Environment.IsPrivilegedProcess
            ? 64_300
            : null, change: options => options with { UserIdCount = 1 });
        for (int i = 0; i < 3; i++)
        {
            while (fixture.Launcher.Pool.Ready == 0)
            {
                await Task.Delay(20, Soon);
            }

            int dead = fixture.Launcher.Pool.ProcessIds.Single();
            Signal("KILL", dead);
            IWorker worker = await LaunchSoonAsync(fixture); // the one user, every time
            await worker.StopAsync(Soon);
            await worker.Ended.WaitAsync(Soon);
            CancellationToken limit = Soon;
            while (Directory.Exists($"/proc/{dead}")) // reaped, not a zombie until a finalizer runs
            {
                await Task.Delay(20, limit);
            }
        }
    }

    /// <summary>A launch that met the worker in the moment of its death says so; whoever asks again gets another.</summary>
    private static async Task<IWorker> LaunchSoonAsync(WorkerFixture fixture)
    {
        while (true)
        {
            try
            {
                return await fixture.LaunchAsync(SpecOf("idle"));
            }
            catch (WorkerException died) when (died.Code is "worker-died")
            {
                await Task.Delay(20);
            }
        }
    }

    /// <summary>A daemon by hand, which dies right behind its request; the worker stands still before it has read that.</summary>
    private static ProcessHandle BeginCreate(WorkerFixture fixture, string id, VmSpec spec)
    {
        (PacketSocket ours, ProcessHandle process) = Spawn(fixture);
        using (ours)
        {
            Signal("STOP", process.ProcessId);
            using WorkerResources resources = WorkerResources.Open(spec, s_everywhere);
            resources.AddKvm();
            AddNames(new WorkerFiles(fixture.Folder, id), resources);
            ours.Send(ControlCodec.Encode(new ControlFrame
            {
                Id = 1,
                Kind = ControlKinds.Create,
                Body = ControlCodec.Body(new CreateBody(id, null, VmSpecJson.Write(spec)), ControlJson.Default.CreateBody),
                Descriptors = resources.Names,
            }), [.. resources.Handles], 1000);
            return process;
        }
    }

    private static (PacketSocket Ours, ProcessHandle Process) Spawn(WorkerFixture fixture)
    {
        (PacketSocket ours, PacketSocket theirs) = PacketSocket.CreatePair();
        using (theirs)
        {
            return (ours, ProcessHandle.Spawn(fixture.Options.Program, ["--control"], new Dictionary<string, string>(), [theirs.Handle]));
        }
    }

    private static void AddNames(WorkerFiles files, WorkerResources resources)
    {
        resources.Add("listener", PacketListener.Bind(files.Socket));
        SafeFileHandle end = files.MakeEnd();
        nint number = end.DangerousGetHandle();
        end.SetHandleAsInvalid();
        resources.Add("end", new FileDescriptorHandle(number));
    }

    /// <summary>What an unsound frame comes to, from either side.</summary>
    private static void BreakConnection(IWorker worker)
    {
        WorkerLink link =
            (WorkerLink)typeof(RemoteWorker).GetField("_link", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(worker)!;
        Socket socket =
            (Socket)typeof(ControlClient).GetField("_waiter", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(link.Client)!;
        socket.Shutdown(SocketShutdown.Both);
    }

    private static async Task GoneAsync(ProcessHandle process)
    {
        CancellationToken limit = Soon;
        while (process.Wait(0) is null) // all threads, and what they held
        {
            await Task.Delay(20, limit);
        }
    }

    private static async Task<ControlFrame> ReceiveAsync(PacketSocket socket)
    {
        byte[] buffer = new byte[ControlCodec.MaxFrame];
        CancellationToken limit = Soon;
        while (true)
        {
            PacketKind kind = socket.Receive(buffer, 1, out int length, out _);
            if (kind == PacketKind.Packet)
            {
                return ControlCodec.TryDecode(buffer.AsSpan(0, length), 0, out string problem)
                    ?? throw new InvalidOperationException(problem);
            }

            Assert.Equal(PacketKind.Empty, kind);
            await Task.Delay(5, limit);
        }
    }

    private static string Error(ControlFrame frame) =>
        ControlCodec.TryBody(frame, ControlJson.Default.ControlError, out ControlError? error, out _) ? error.Code : frame.Kind;

    private static void LimitDescriptors(int processId, int count)
    {
        using Process limit = Process.Start("prlimit", ["--pid", processId.ToString(CultureInfo.InvariantCulture), $"--nofile={count}:"]);
        limit.WaitForExit();
        Assert.Equal(0, limit.ExitCode);
    }

    private static void Signal(string name, int processId)
    {
        using Process kill = Process.Start("kill", [$"-{name}", processId.ToString(CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
        Assert.Equal(0, kill.ExitCode);
    }
}
