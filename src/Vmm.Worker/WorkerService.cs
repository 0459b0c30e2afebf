using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Worker.Confinement;

namespace Vmm.Worker;

/// <summary>
/// The control channel of a worker: one connection at a time, requests one after the other on the main thread, events from any thread. Without a VM the
/// process ends with its connection; with one it waits for the next connection, and ends when the VM does.
/// </summary>
internal sealed class WorkerService(uint masterUser, Sandbox sandbox) : IDisposable
{
    private const int SendTimeout = 2000, PageSize = 4096, AcceptPause = 1000; // milliseconds, but for the page

    private readonly Lock _sending = new();
    private readonly EventFd _over = new();
    private readonly byte[] _buffer = new byte[ControlCodec.MaxFrame];
    // Opened before anything is given up: afterwards /proc may be out of reach.
    private readonly SafeFileHandle _statm = File.OpenHandle("/proc/self/statm");
    private VsockDialer? _dialer;
    private PacketSocket? _connection;
    private FileDescriptorHandle? _listener;
    private HostedMachine? _machine;
    private EmptyVm? _prepared;
    private PartialRequest? _partial;

    public void Dispose()
    {
        _machine?.Dispose();
        _prepared?.Dispose();
        _partial?.Dispose();
        _listener?.Dispose();
        _statm.Dispose();
        _over.Dispose();
    }

    /// <summary>Serves until there is nothing left to do.</summary>
    internal void Serve(PacketSocket first)
    {
        Attach(first);
        PollEntry[] polls = new PollEntry[2];
        while (_connection is not null || _machine is not null)
        {
            polls[0] = new PollEntry(_connection?.Handle ?? _listener, read: true);
            polls[1] = new PollEntry(_over.Handle, read: true);
            Poll.Wait(polls, -1);
            if (polls[0].Readable)
            {
                if (_connection is null)
                {
                    Accept();
                }
                else if (!Receive(_connection))
                {
                    Attach(null);
                }
            }
            else if (polls[1].Readable)
            {
                return;
            }
        }
    }

    private void Attach(PacketSocket? connection)
    {
        Drop(ref _partial); // the rest of it will not come
        lock (_sending)
        {
            _connection?.Dispose();
            _connection = connection;
        }
    }

    // The directory of the socket keeps strangers out; this keeps out those who got in all the same.
    private void Accept()
    {
        PacketSocket? next = null;
        try
        {
            next = PacketListener.Accept(_listener!);
            if (next.Peer.UserId == masterUser)
            {
                Attach(next);
                return;
            }
        }
        catch (KernelException cause)
        {
            // Out of descriptors, say: no reason to end the VM. Whoever waits is accepted later.
            Console.Error.WriteLine($"vmm-worker {Environment.ProcessId}: {cause.Message}");
            Thread.Sleep(AcceptPause);
        }

        next?.Dispose();
    }

    // False when the connection is no good any more.
    private bool Receive(PacketSocket connection)
    {
        PacketKind kind;
        int length;
        FileDescriptorHandle[] descriptors;
        try
        {
            kind = connection.Receive(_buffer, ControlCodec.MaxDescriptors, out length, out descriptors);
        }
        catch (KernelException)
        {
            return false; // a broken connection: the daemon makes another
        }

        if (kind != PacketKind.Packet)
        {
            return kind switch
            {
                PacketKind.Empty => true,
                PacketKind.TooLarge => Unsound("too long, or too many descriptors"),
                _ => false,
            };
        }

        if (ControlCodec.TryDecode(_buffer.AsSpan(0, length), descriptors.Length, out string problem) is not { } frame)
        {
            foreach (FileDescriptorHandle descriptor in descriptors)
            {
                descriptor.Dispose();
            }

            return Unsound(problem);
        }

        return Take(frame, descriptors);
    }

    /// <summary>A frame, which may be a part of a request: the request is carried out when all of it is there.</summary>
    private bool Take(ControlFrame frame, FileDescriptorHandle[] descriptors)
    {
        bool sound;
        string problem;
        if (_partial is null)
        {
            _partial = PartialRequest.TryBegin(frame, descriptors, out problem);
            sound = _partial is not null;
        }
        else
        {
            sound = _partial.TryAdd(frame, descriptors, out problem);
        }

        if (!sound)
        {
            Drop(ref _partial);
            return Unsound(problem, frame.Id);
        }

        if (!_partial!.IsWhole)
        {
            return true;
        }

        using DescriptorResources passed = new(_partial.Detach()) { Threads = sandbox, DialHost = Dialer.Dial };
        ControlFrame request = _partial.Frame;
        Drop(ref _partial);
        return Answer(request, () => Do(request, passed));
    }

    private static void Drop(ref PartialRequest? request)
    {
        request?.Dispose();
        request = null;
    }

    /// <summary>Packets keep their borders: behind one that is not sound the next one may be. So the connection stays.</summary>
    private bool Unsound(string problem, long id = 0)
    {
        Fail(id, ControlCodes.BadFrame, problem);
        return true;
    }

    private bool Fail(long id, string code, string message, PacketSocket? asker = null)
    {
        Send(id, ControlKinds.Error, ControlCodec.Body(new ControlError(code, message), ControlJson.Default.ControlError), asker: asker);
        return false;
    }

    private bool Answer(ControlFrame frame, Action carryOut, PacketSocket? asker = null)
    {
        try
        {
            carryOut();
        }
        catch (RequestException refused)
        {
            Fail(frame.Id, refused.Code, refused.Message, asker);
        }
#pragma warning disable CA1031 // A request that meets an error of ours must not take the VM with it.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Fail(frame.Id, ControlCodes.Internal, $"{cause.GetType().Name}: {cause.Message}", asker);
        }

        return true;
    }

    private void Do(ControlFrame frame, DescriptorResources passed)
    {
        switch (frame.Kind)
        {
            case ControlKinds.Hello:
                Hello(frame);
                return;
            case ControlKinds.Prepare:
                Prepare(passed);
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.Create:
                Create(frame, passed);
                break;
            case ControlKinds.Start:
                Machine.Start();
                break;
            case ControlKinds.Pause:
                Machine.Pause();
                break;
            case ControlKinds.Resume:
                Machine.Resume();
                break;
            case ControlKinds.PowerButton:
                Machine.PressPowerButton();
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.Wake:
                Machine.Wake();
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.Stop:
                Send(frame.Id, ControlKinds.Ok, null);
                Machine.Stop();
                return;
            case ControlKinds.Stats:
                Ok(frame, Machine.Stats(ResidentBytes()), ControlJson.Default.WorkerStats);
                return;
            case ControlKinds.Limits:
                Machine.SetLimits(Body(frame, ControlJson.Default.LimitsBody));
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.Memory:
                Ok(frame, Memory(frame), ControlJson.Default.VmMemory);
                return;
            case ControlKinds.Numa:
                Ok(frame, Machine.Numa, ControlJson.Default.WorkerNuma);
                return;
            case ControlKinds.Rehome:
                Machine.Rehoming.Start(Body(frame, ControlJson.Default.RehomeBody));
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.RehomeCancel:
                Machine.Rehoming.Cancel();
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.Console:
                OpenConsole(frame);
                return;
            case ControlKinds.ConsoleSize:
                Machine.Console.Resize(Body(frame, ControlJson.Default.ConsoleSize));
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.Devices:
                Ok(frame, Machine.Devices, ControlJson.Default.DeviceList);
                return;
            case ControlKinds.AddDevice:
                Ok(frame, Machine.Add(Body(frame, ControlJson.Default.PlugBody), passed), ControlJson.Default.DeviceInfo);
                return;
            case ControlKinds.VsockDialed:
                VsockDialed dialed = Body(frame, ControlJson.Default.VsockDialed);
                Dialer.Answer(dialed.Dial, dialed.Connected ? passed.Take("stream") : null);
                Send(frame.Id, ControlKinds.Ok, null);
                return;
            case ControlKinds.RemoveDevice:
                RemoveDevice(frame);
                return;
            default:
                throw new RequestException(ControlCodes.UnknownKind, $"this worker knows no \"{frame.Kind}\"");
        }

        // The state goes before the answer: who waits for the answer finds it changed. An end that came first was told already.
        if (Machine.State != WorkerState.Ended)
        {
            Send(0, ControlKinds.State, ControlCodec.Body(new StateBody(Machine.State), ControlJson.Default.StateBody));
        }

        if (frame.Kind is ControlKinds.Create)
        {
            Ok(frame, sandbox.Report, ControlJson.Default.ConfinementBody);
            return;
        }

        Send(frame.Id, ControlKinds.Ok, null);
    }

    private VsockDialer Dialer => _dialer ??= new VsockDialer(
        (dial, port) => Send(0, ControlKinds.VsockDial, ControlCodec.Body(new VsockDial(dial, port), ControlJson.Default.VsockDial)), TimeSpan.FromSeconds(2));

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

    private void Create(ControlFrame frame, DescriptorResources passed)
    {
        if (_machine is not null)
        {
            throw new RequestException(ControlCodes.WrongState, "this worker has its VM already");
        }

        CreateBody body = Body(frame, ControlJson.Default.CreateBody);
        FileDescriptorHandle listener = passed.Take("listener");
        HostedMachine? machine = null;
        try
        {
            EmptyVm? prepared = _prepared;
            _prepared = null;
            using (new BuildWatch(_connection!))
            {
                machine = HostedMachine.Create(body, passed, passed.Take("end"), prepared, Ended);
            }

            sandbox.BuildFilters(machine.Needs);
            sandbox.ProvideRings(machine.RingsNeeded);
            sandbox.Close(body.UserId, () => Listen(listener)); // as the new user: SO_PEERCRED shows the process and user of this moment
        }
        catch
        {
            machine?.Dispose();
            listener.Dispose();
            throw;
        }

        _listener = listener;
        _machine = machine;
        _machine.OnGuestEvent(
            told => Send(0, ControlKinds.GuestEvent, ControlCodec.Body(new GuestEventBody(told), ControlJson.Default.GuestEventBody)),
            () => Send(0, ControlKinds.State, ControlCodec.Body(new StateBody(WorkerState.Crashed), ControlJson.Default.StateBody)));
        _machine.OnDiskError(fault => Send(0, ControlKinds.DiskError, ControlCodec.Body(fault, ControlJson.Default.DiskErrorBody)));
        _machine.OnDeviceRemoved(removal => Send(0, ControlKinds.DeviceRemoved, ControlCodec.Body(removal, ControlJson.Default.RemovalBody)));
    }

    /// <summary>
    /// From here on a later daemon finds this worker. One that came before found nobody, and has told that the VM is lost.
    /// </summary>
    private void Listen(FileDescriptorHandle listener)
    {
        PacketListener.Listen(listener);
        if (_connection!.HasHungUp)
        {
            throw new RequestException(ControlCodes.Abandoned, "vmmd went while the VM was built");
        }
    }

    /// <summary>Who does not say its version is told only what the first version knew: it would refuse the rest.</summary>
    private void Hello(ControlFrame frame)
    {
        ControlPeer daemon = ControlPeer.Of(frame.Body is null ? null : Body(frame, ControlJson.Default.HelloRequest));
        HelloBody hello = new(_machine?.VmId, _machine?.State ?? WorkerState.Idle, sandbox.Report);
        if (daemon.Version > 1)
        {
            hello = hello with { Version = ControlVersion.Current, Features = ControlVersion.Features };
        }

        Ok(frame, hello, ControlJson.Default.HelloBody);
    }

    /// <summary>A removal takes the guest's time: it is answered when it is over, to who asked. A daemon that came meanwhile did not.</summary>
    private void RemoveDevice(ControlFrame frame)
    {
        Task<RemovalBody> removal = Machine.RemoveAsync(Body(frame, ControlJson.Default.UnplugBody));
        PacketSocket? asker = _connection;
        _ = removal.ContinueWith(
            ended => _ = Answer(frame, () => Ok(frame, ended.GetAwaiter().GetResult(), ControlJson.Default.RemovalBody, asker), asker),
            CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
    }

    private static T Body<T>(ControlFrame frame, JsonTypeInfo<T> type) where T : class =>
        ControlCodec.TryBody(frame, type, out T? body, out string problem) ? body : throw new RequestException(ControlCodes.BadFrame, problem);

    private VmMemory Memory(ControlFrame frame)
    {
        if (frame.Body is not null)
        {
            Machine.SetMemory(Body(frame, ControlJson.Default.MemoryWish));
        }

        return Machine.Memory;
    }

    private void OpenConsole(ControlFrame frame)
    {
        using FileDescriptorHandle console = Machine.Console.Attach() ?? throw new RequestException(ControlCodes.ConsoleLimit, "too many consoles are open on this VM");
        Send(frame.Id, ControlKinds.Ok, null, console);
    }

    private void Ended(WorkerExit exit)
    {
        Send(0, ControlKinds.Ended, ControlCodec.Body(exit, ControlJson.Default.WorkerExit));
        _over.Signal();
    }

    private void Ok<T>(ControlFrame frame, T body, JsonTypeInfo<T> type, PacketSocket? asker = null) => Send(frame.Id, ControlKinds.Ok, ControlCodec.Body(body, type), asker: asker);

    // A daemon that does not read loses messages, then its connection shows the damage; the VM goes on in any case.
    // With an asker it goes to that connection or nowhere: numbers of requests begin anew with each.
    private bool Send(long id, string kind, JsonElement? body, FileDescriptorHandle? descriptor = null, PacketSocket? asker = null)
    {
        byte[] bytes = ControlCodec.Encode(new ControlFrame { Id = id, Kind = kind, Body = body, Descriptors = descriptor is null ? null : ["console"] });
        lock (_sending)
        {
            if (_connection is not { } connection || (asker is not null && !ReferenceEquals(asker, connection)))
            {
                return false;
            }

            try
            {
                connection.Send(bytes, descriptor is null ? [] : [descriptor], SendTimeout);
                return true;
            }
            catch (KernelException)
            {
                return false; // the reading side sees the end of the connection and lets it go
            }
        }
    }

    private long ResidentBytes()
    {
        Span<byte> text = stackalloc byte[256];
        int length = RandomAccess.Read(_statm, text, 0);
        int space = text[..length].IndexOf((byte)' ');
        return System.Buffers.Text.Utf8Parser.TryParse(text[(space + 1)..length], out long pages, out _) ? pages * PageSize : 0;
    }
}
