using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Worker.Confinement;

namespace Vmm.Worker;

/// <summary>
/// What a worker does for its daemon. The main thread answers what is known at once; what changes the machine takes turns on a thread of
/// its own (<see cref="TurnThread"/>), and a stop waits for nobody. Events come from any thread. Without a VM the process ends with its
/// connection; with one it waits for the next connection, and ends when the VM does.
/// </summary>
internal sealed class WorkerService : IDisposable
{
    private readonly Sandbox _sandbox;
    private readonly ControlPort _port;
    private readonly EventFd _over = new();
    private readonly ResidentMemory _resident = new();
    private VsockDialer? _dialer;
    private StorageDialer? _storageDialer;
    private HostedMachine? _machine;
    private TurnThread? _turns; // from the creation of the machine on
    private EmptyVm? _prepared;
    private readonly MoveRequests _moves;

    /// <summary>Makes the service.</summary>
    /// <param name="first">The connection that the worker was started with.</param>
    /// <param name="sandbox">What is given up when there is a VM.</param>
    internal WorkerService(PacketSocket first, Sandbox sandbox)
    {
        _sandbox = sandbox;
        _moves = new MoveRequests(sandbox, TellState);
        _port = new ControlPort(first, first.Peer.UserId, Take);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _turns?.Dispose();
        _machine?.Dispose();
        _moves.Dispose();
        _prepared?.Dispose();
        _port.Dispose();
        _resident.Dispose();
        _over.Dispose();
    }

    /// <summary>Serves until there is nothing left to do.</summary>
    internal void Serve() => _port.Serve(_over, () => _port.Connection is not null || _machine is not null);

    private void Take(ControlFrame request, Dictionary<string, FileDescriptorHandle> descriptors)
    {
        DescriptorResources passed = new(descriptors)
        {
            Threads = _sandbox,
            DialHost = Dialer.Dial,
            DialStorage = StorageDialer.DialAsync,
            MayLoad = _machine is null,
            Note = remark => Console.Error.WriteLine($"vmm-worker {Environment.ProcessId}: {remark}"),
        };
        ControlReply reply = new(_port, request);
        if (request.Kind is ControlKinds.SaveCancel)
        {
            _machine?.Saves.Cancel(); // at once; what it left is cleared up in turn
        }
        else if (request.Kind is ControlKinds.MoveCancel)
        {
            _machine?.Moves.BeginCancel(); // likewise
        }

        if (_turns is { } turns && TakesTurns(request.Kind))
        {
            turns.Add(() => CarryOut(reply, passed));
        }
        else
        {
            CarryOut(reply, passed);
        }
    }

    // What changes the machine, and may wait for its guest or its storage.
    private static bool TakesTurns(string kind) =>
        kind is ControlKinds.Start or ControlKinds.Pause or ControlKinds.Resume or ControlKinds.AddDevice
            or ControlKinds.RefreshDisk or ControlKinds.Save or ControlKinds.SaveCancel or ControlKinds.CopyDisk or ControlKinds.StreamDisk
            or ControlKinds.CommitDisk or ControlKinds.CopyStep or ControlKinds.SnapshotDisks or ControlKinds.SnapshotStatus
            or ControlKinds.LogDisk or ControlKinds.UnlogDisk
            or ControlKinds.Move or ControlKinds.MoveStop or ControlKinds.MoveCancel;

    private void CarryOut(ControlReply reply, DescriptorResources passed)
    {
        using (passed)
        {
            reply.Guard(() => Do(reply, passed));
        }
    }

    // What begins, changes and ends the machine's life.
    private void Do(ControlReply reply, DescriptorResources passed)
    {
        _machine?.Moves.Admit(reply.Frame);
        switch (reply.Frame.Kind)
        {
            case ControlKinds.Hello:
                Hello(reply);
                break;
            case ControlKinds.Prepare:
                Prepare(passed);
                reply.Ok();
                break;
            case ControlKinds.Create:
                Create(reply, passed);
                TellState();
                reply.Ok(_sandbox.Report, ControlJson.Default.ConfinementBody);
                break;
            case ControlKinds.Start:
                Change(reply, Machine.Start);
                break;
            case ControlKinds.Pause:
                Change(reply, Machine.Pause);
                break;
            case ControlKinds.Resume:
                Change(reply, Machine.Resume);
                break;
            case ControlKinds.Save:
                Machine.DiskCopy.ThrowIfCopying();
                Change(reply, () => Machine.Saves.Save(passed));
                break;
            case ControlKinds.SaveCancel:
                Change(reply, Machine.Saves.Forget);
                break;
            case ControlKinds.Stop:
                reply.Ok();
                Machine.Stop();
                break;
            case ControlKinds.Move or ControlKinds.MoveStatus or ControlKinds.MoveStop or ControlKinds.MoveCancel
                or ControlKinds.Receive or ControlKinds.ReceiveStatus:
                _moves.Do(reply, passed, _machine);
                break;
            default:
                Answer(reply, passed);
                break;
        }
    }

    // What is answered with what it found or made.
    private void Answer(ControlReply reply, DescriptorResources passed)
    {
        switch (reply.Frame.Kind)
        {
            case ControlKinds.Stats:
                reply.Ok(Machine.Report.Stats(_resident.Bytes), ControlJson.Default.WorkerStats);
                break;
            case ControlKinds.Units:
                reply.Ok(Machine.Report.Units, ControlJson.Default.UnitList);
                break;
            case ControlKinds.Memory:
                reply.Ok(
                    Machine.Memory.Take(reply.Frame.Body is null ? null : Body(reply, ControlJson.Default.MemoryWish)),
                    ControlJson.Default.VmMemory);
                break;
            case ControlKinds.Numa:
                reply.Ok(Machine.Report.Numa, ControlJson.Default.WorkerNuma);
                break;
            case ControlKinds.Console:
                OpenConsole(reply);
                break;
            case ControlKinds.AgentStream:
                ConnectAgent(reply);
                break;
            case ControlKinds.Devices:
                reply.Ok(Machine.Devices.List, ControlJson.Default.DeviceList);
                break;
            case ControlKinds.CopyStatus:
                reply.Ok(Machine.DiskCopy.Info, ControlJson.Default.DiskCopyInfo);
                break;
            case ControlKinds.SnapshotStatus:
                reply.Ok(Machine.Snapshots.Look(Body(reply, ControlJson.Default.SnapshotBody)), ControlJson.Default.SnapshotInfo);
                break;
            case ControlKinds.AddDevice:
                reply.Ok(Machine.Devices.Add(Body(reply, ControlJson.Default.PlugBody), passed), ControlJson.Default.DeviceInfo);
                break;
            case ControlKinds.RemoveDevice:
                RemoveDevice(reply);
                break;
            case ControlKinds.RefreshDisk:
                reply.Ok(Machine.Devices.Refresh(Body(reply, ControlJson.Default.RefreshDiskBody)), ControlJson.Default.DiskSize);
                break;
            default:
                Tell(reply, passed);
                reply.Ok();
                break;
        }
    }

    // What is answered with nothing but that it is done.
    private void Tell(ControlReply reply, DescriptorResources passed)
    {
        switch (reply.Frame.Kind)
        {
            case ControlKinds.PowerButton:
                Machine.PressPowerButton();
                break;
            case ControlKinds.Wake:
                Machine.Wake();
                break;
            case ControlKinds.Limits:
                Machine.Devices.SetLimits(Body(reply, ControlJson.Default.LimitsBody));
                break;
            case ControlKinds.CopyDisk:
                Machine.DiskCopy.Begin(Body(reply, ControlJson.Default.CopyDiskBody), passed);
                break;
            case ControlKinds.StreamDisk:
                Machine.DiskCopy.Begin(Body(reply, ControlJson.Default.StreamDiskBody));
                break;
            case ControlKinds.CommitDisk:
                Machine.DiskCopy.Begin(Body(reply, ControlJson.Default.CommitDiskBody), passed);
                break;
            case ControlKinds.CopyStep:
                Machine.DiskCopy.Take(Body(reply, ControlJson.Default.CopyStepBody));
                break;
            case ControlKinds.SnapshotDisks:
                Machine.Snapshots.Take(Body(reply, ControlJson.Default.SnapshotBody), passed);
                break;
            case ControlKinds.LogDisk or ControlKinds.UnlogDisk:
                Machine.Snapshots.Log(Body(reply, ControlJson.Default.LogBody), passed, reply.Frame.Kind is ControlKinds.LogDisk);
                break;
            case ControlKinds.Rehome:
                Machine.Rehoming.Start(Body(reply, ControlJson.Default.RehomeBody));
                break;
            case ControlKinds.RehomeCancel:
                Machine.Rehoming.Cancel();
                break;
            case ControlKinds.ConsoleSize:
                Machine.Console.Resize(Body(reply, ControlJson.Default.ConsoleSize));
                break;
            case ControlKinds.VsockDialed:
                VsockDialed dialed = Body(reply, ControlJson.Default.VsockDialed);
                Dialer.Answer(dialed.Dial, dialed.Connected ? passed.Take("stream") : null);
                break;
            case ControlKinds.StorageDialed:
                StorageDialed server = Body(reply, ControlJson.Default.StorageDialed);
                _ = passed.TryTake("socket", out FileDescriptorHandle? socket);
                StorageDialer.Answer(server.Dial, socket, server.Problem);
                break;
            default:
                throw new RequestException(ControlCodes.UnknownKind, $"this worker knows no \"{reply.Frame.Kind}\"");
        }
    }

    // The state goes before the answer: who waits for the answer finds it changed.
    private void Change(ControlReply reply, Action change)
    {
        change();
        TellState();
        reply.Ok();
    }

    // An end that came first was told already.
    private void TellState()
    {
        if (Machine.State != VmState.Stopped)
        {
            _port.Tell(ControlKinds.State, new StateBody(Machine.State), ControlJson.Default.StateBody);
        }
    }

    private VsockDialer Dialer => _dialer ??= new VsockDialer(
        (dial, port) => _port.Tell(ControlKinds.VsockDial, new VsockDial(dial, port), ControlJson.Default.VsockDial),
        TimeSpan.FromSeconds(2));

    private StorageDialer StorageDialer => _storageDialer ??= new StorageDialer(
        (dial, disk) => _port.Tell(ControlKinds.StorageDial, new StorageDial(dial, disk), ControlJson.Default.StorageDial));

    private HostedMachine Machine => _machine ?? throw new RequestException(ControlCodes.WrongState, "there is no VM in this worker");

    private void Prepare(DescriptorResources passed)
    {
        if (_machine is not null || _prepared is not null)
        {
            throw new RequestException(ControlCodes.WrongState, "this worker is prepared already");
        }

        _prepared = EmptyVm.Create(passed.OpenKvm());
        _prepared.Complete();
    }

    private void Create(ControlReply reply, DescriptorResources passed)
    {
        if (_machine is not null)
        {
            throw new RequestException(ControlCodes.WrongState, "this worker has its VM already");
        }

        CreateBody body = Body(reply, ControlJson.Default.CreateBody);
        FileDescriptorHandle listener = passed.Take("listener");
        HostedMachine? machine = null;
        try
        {
            EmptyVm? prepared = _prepared;
            _prepared = null;
            using (new BuildWatch(_port.Connection!))
            {
                machine = HostedMachine.Create(body, passed, passed.Take("end"), prepared, _moves.Incoming, Ended);
            }

            _moves.Dispose();

            _sandbox.BuildFilters(machine.Needs);
            _sandbox.ProvideRings(machine.RingsNeeded);
            _sandbox.Close(body.UserId, () => Listen(listener)); // as the new user: SO_PEERCRED shows the process and user of this moment
        }
        catch
        {
            machine?.Dispose();
            listener.Dispose();
            throw;
        }

        _port.ListenOn(listener);
        _machine = machine;
        _turns = new TurnThread();
        _machine.OnGuestEvent(
            told => _port.Tell(ControlKinds.GuestEvent, new GuestEventBody(told), ControlJson.Default.GuestEventBody),
            () => _port.Tell(ControlKinds.State, new StateBody(VmState.Crashed), ControlJson.Default.StateBody));
        _machine.OnDiskError(fault => _port.Tell(ControlKinds.DiskError, fault, ControlJson.Default.DiskErrorBody));
        _machine.OnDiskStall(stall =>
        {
            TellState(); // first: who hears of the stall finds it changed
            _port.Tell(ControlKinds.DiskStalled, stall, ControlJson.Default.DiskStallBody);
        });
        _machine.Paging.OnStopped(reason => _port.Tell(
            ControlKinds.PagingStopped, new PagingStoppedBody(reason), ControlJson.Default.PagingStoppedBody));
        _machine.OnMemoryRestored(restore => _port.Tell(
            ControlKinds.MemoryRestored, restore, ControlJson.Default.MemoryRestoreInfo));
        _machine.Devices.OnRemoved(removal => _port.Tell(ControlKinds.DeviceRemoved, removal, ControlJson.Default.RemovalBody));
    }

    /// <summary>
    /// From here on a later daemon finds this worker. One that came before found nobody, and has told that the VM is lost.
    /// </summary>
    private void Listen(FileDescriptorHandle listener)
    {
        PacketListener.Listen(listener);
        if (_port.Connection!.HasHungUp)
        {
            throw new RequestException(ControlCodes.Abandoned, "vmmd went while the VM was built");
        }
    }

    /// <summary>Who does not say its version is told only what the first version knew: it would refuse the rest.</summary>
    private void Hello(ControlReply reply)
    {
        ControlPeer daemon = ControlPeer.Of(reply.Frame.Body is null ? null : Body(reply, ControlJson.Default.HelloRequest));
        HelloBody hello = new(_machine?.VmId, _machine?.State ?? VmState.Defined, _sandbox.Report);
        if (daemon.Version > 1)
        {
            hello = hello with { Version = ControlVersion.Current, Features = ControlVersion.Features };
        }

        reply.Ok(hello, ControlJson.Default.HelloBody);
    }

    /// <summary>
    /// A removal takes the guest's time: it is answered when it is over, to who asked. A daemon that came meanwhile did not.
    /// </summary>
    private void RemoveDevice(ControlReply reply)
    {
        Task<RemovalBody> removal = Machine.Devices.RemoveAsync(Body(reply, ControlJson.Default.UnplugBody));
        _ = removal.ContinueWith(
            ended => reply.Guard(() => reply.Ok(ended.GetAwaiter().GetResult(), ControlJson.Default.RemovalBody)),
            CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
    }

    /// <summary>The body of a request.</summary>
    /// <exception cref="RequestException">It is none of that type.</exception>
    internal static T Body<T>(ControlReply reply, JsonTypeInfo<T> type) where T : class =>
        ControlCodec.TryBody(reply.Frame, type, out T? body, out string problem)
            ? body
            : throw new RequestException(ControlCodes.BadFrame, problem);

    private void OpenConsole(ControlReply reply)
    {
        using FileDescriptorHandle console = Machine.Console.Attach()
            ?? throw new RequestException(ControlCodes.ConsoleLimit, "too many consoles are open on this VM");
        reply.Ok(console);
    }

    private void ConnectAgent(ControlReply reply)
    {
        using FileDescriptorHandle stream = Machine.ConnectAgent(Body(reply, ControlJson.Default.AgentStreamBody));
        reply.Ok(stream);
    }

    private void Ended(WorkerExit exit)
    {
        _port.Tell(ControlKinds.Ended, exit, ControlJson.Default.WorkerExit);
        _over.Signal();
    }
}
