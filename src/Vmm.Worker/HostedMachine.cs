using Vmm.Interop.Kvm;
using Vmm.Contracts.Control;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Serial;
using Vmm.Devices.VhostUser;
using Vmm.HostNet.Shares;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Layout;
using Vmm.Machine.Moving;
using Vmm.Machine.Numa;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>The VM of this worker: the machine, its console, the thread that waits for its end, and the record of that end.</summary>
internal sealed class HostedMachine : IDisposable
{
    private readonly VirtualMachine _machine;
    private readonly SharedFileMapping? _endFile;
    private readonly CancellationTokenSource _stop = new();
    private readonly Action<WorkerExit> _ended;
    private Thread? _runner;
    private WorkerExit? _exit;
    private bool _staysPaused; // it came from another worker, where it was paused: nothing of it runs before it is resumed

    private HostedMachine(string vmId, VirtualMachine machine, ConsoleHub console, SharedFileMapping? endFile, Action<WorkerExit> ended)
    {
        VmId = vmId;
        _machine = machine;
        Rehoming = new Rehoming(machine);
        Console = console;
        _endFile = endFile;
        _ended = ended;
        Devices = new HostedDevices(machine, () => State);
        Paging = new HostedPaging(() => machine.Pager);
        Memory = new HostedMemory(machine, Paging);
        Report = new HostedReport(machine, Rehoming, Paging);
        Saves = new HostedSave(machine, _stop.Token);
        DiskCopy = new HostedDiskCopy(machine, () => State);
        Snapshots = new HostedSnapshots(machine, () => State);
        Moves = new HostedMove(machine, () => Saves.IsResting ? "it was saved: resume it, or stop it"
            : Rehoming.Status is { State: RehomeState.Running } ? "a vnode is being moved to other host nodes" : null);
    }

    internal string VmId { get; }

    /// <summary>Rings that its devices use at most: those that only wait, and those of disks.</summary>
    internal (int Waiting, int Disks) RingsNeeded => (_machine.WaitingRingsNeeded, _machine.FileRingsNeeded);

    /// <summary>What its parts ask of the kernel.</summary>
    internal MachineNeeds Needs => _machine.Needs;

    internal ConsoleHub Console { get; }

    /// <summary>Moves vnodes to other host nodes.</summary>
    internal Rehoming Rehoming { get; }

    /// <summary>Its disks and network devices.</summary>
    internal HostedDevices Devices { get; }

    /// <summary>Its memory.</summary>
    internal HostedMemory Memory { get; }

    /// <summary>What keeps it below its resident limit.</summary>
    internal HostedPaging Paging { get; }

    /// <summary>Its saves.</summary>
    internal HostedSave Saves { get; }

    /// <summary>The copy of one of its disks.</summary>
    internal HostedDiskCopy DiskCopy { get; }

    /// <summary>Differencing disks that become the tops of its disks.</summary>
    internal HostedSnapshots Snapshots { get; }

    /// <summary>Its move to another worker.</summary>
    internal HostedMove Moves { get; }

    /// <summary>What it tells of itself.</summary>
    internal HostedReport Report { get; }

    /// <summary>Where it stands. It runs until its end is written: between the last instruction and that, too.</summary>
    internal VmState State => Volatile.Read(ref _exit) is not null ? VmState.Stopped
        : _runner is null && _staysPaused ? VmState.Paused
        : _machine.State is var state and not VmState.Stopped ? state
        : VmState.Running;

    /// <summary>Builds the VM from a spec and passed descriptors.</summary>
    /// <exception cref="RequestException">It cannot be built.</exception>
    /// <param name="body">Who it is.</param>
    /// <param name="resources">What it is made of.</param>
    /// <param name="endFile">Takes the record of its end (<see cref="EndRecord"/>), owned by this method; null when nobody will
    /// ask.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on; null makes one.</param>
    /// <param name="incoming">What came from another worker; null: nothing.</param>
    /// <param name="ended">Called once.</param>
    internal static HostedMachine Create(
        CreateBody body,
        DescriptorResources resources,
        FileDescriptorHandle? endFile,
        EmptyVm? prepared,
        HostedReceive? incoming,
        Action<WorkerExit> ended)
    {
        if (VmSpecJson.TryRead(body.Spec, out string problem) is not { } spec)
        {
            throw new RequestException(ControlCodes.SpecInvalid, problem);
        }

        ConsoleHub console = new();
        SharedFileMapping? end = null;
        try
        {
            using (endFile)
            {
                // the guest never lives beside a descriptor that could make the file longer
                end = endFile is null ? null : new SharedFileMapping(endFile, EndRecord.Length);
            }

            VirtualMachine machine = body.Received == true
                ? (incoming ?? throw new RequestException(ControlCodes.WrongState, "no VM came to this worker"))
                    .Build(spec, resources, console, prepared)
                : body.Restore == true
                ? HostedSave.Restore(spec, resources, console, prepared)
                : VirtualMachine.Create(Guid.TryParse(body.VmId, out _) ? spec.WithUuid(body.VmId) : spec, resources, console, prepared);
            return new HostedMachine(body.VmId, machine, console, end, ended)
            {
                _staysPaused = body.Received == true && incoming!.IsPaused,
            };
        }
        catch (Exception cause)
        {
            end?.Dispose();
            console.Dispose();
            throw cause switch
            {
                BootException => new RequestException(ControlCodes.KernelInvalid, cause.Message, cause),
                BlockException => new RequestException(ControlCodes.DiskOpenFailed, cause.Message, cause),
                TapException => new RequestException(ControlCodes.NetOpenFailed, cause.Message, cause),
                HostShareException => new RequestException(ControlCodes.ShareOpenFailed, cause.Message, cause),
                VhostUserException => new RequestException(ControlCodes.BackEndOpenFailed, cause.Message, cause),
                KvmUnavailableException => new RequestException(ControlCodes.KvmUnavailable, cause.Message, cause),
                KernelException => new RequestException(ControlCodes.ResourceRefused, cause.Message, cause),
                HostMismatchException or ArgumentException => new RequestException(ControlCodes.HostMismatch, cause.Message, cause),
                StateException or UnitsException or MoveException =>
                    new RequestException(ControlCodes.SavedStateRefused, cause.Message, cause),
                _ => cause,
            };
        }
    }

    internal void Start()
    {
        if (_runner is not null || (State != VmState.Starting && !_staysPaused))
        {
            throw new RequestException(ControlCodes.WrongState, $"the VM cannot be started: it is {State}");
        }

        using ManualResetEventSlim running = new();
        Thread runner = new(() => Run(running), maxStackSize: 256 * 1024) { Name = "machine", IsBackground = true };
        runner.Start();
        _runner = runner; // once it runs: it is joined
        running.Wait();
    }

    internal void Pause() => Move(_machine.Pause);

    internal void Resume() => Move(() =>
    {
        if (_runner is null && _staysPaused)
        {
            Start();
            return;
        }

        // One that rested after its save may run now; any other has to be paused.
        if (!Saves.TryForget() || State == VmState.Paused)
        {
            _machine.Resume();
        }
    });

    internal void PressPowerButton()
    {
        // Pressed while it is paused, it is heard when it goes on; vmmd presses it only while it runs, as the table says.
        if (!State.IsUp())
        {
            throw new RequestException(ControlCodes.WrongState, $"the power button does nothing: the VM is {State}");
        }

        _machine.PressPowerButton();
    }

    /// <summary>A stream to the standard agent of the guest.</summary>
    /// <exception cref="RequestException">None has the port open.</exception>
    internal FileDescriptorHandle ConnectAgent(AgentStreamBody body)
    {
        byte[] farewell = body.Farewell ?? [];
        return farewell.Length > VirtioSerial.LongestFarewell
            ? throw new RequestException(ControlCodes.BadFrame, $"last words of {farewell.Length} bytes")
            : _machine.ConnectAgent(farewell)
                ?? throw new RequestException(ControlCodes.NoAgent, "no agent of the guest has the port open");
    }

    /// <summary>Calls the handlers on threads that may send.</summary>
    /// <param name="told">The guest told something of itself.</param>
    /// <param name="preserved">After a panic its vCPUs stand still for good.</param>
    internal void OnGuestEvent(Action<GuestEvent> told, Action preserved)
    {
        _machine.GuestPanic += (_, panic) => told(panic.Panicked ? GuestEvent.Panicked : GuestEvent.CrashKernel);
        _machine.Preserved += (_, _) => preserved();
    }

    /// <summary>Calls the handler when the host fails requests of a disk, on a thread that may send.</summary>
    internal void OnDiskError(Action<DiskErrorBody> told) =>
        _machine.DiskFaulted += (_, fault) =>
            told(new DiskErrorBody(fault.Disk, fault.Status == DiskStatus.NoSpace ? DiskFault.NoSpace : DiskFault.IoError));

    /// <summary>Calls the handler when the VM is paused for a disk, or goes on by itself, on a thread that may send.</summary>
    internal void OnDiskStall(Action<DiskStallBody> told) =>
        _machine.DiskStalled += (_, stall) => told(
            new DiskStallBody(stall.Disk, stall.Fault == DiskStatus.NoSpace ? DiskFault.NoSpace : DiskFault.IoError, stall.Waits));

    internal void Wake()
    {
        if (!State.IsUp())
        {
            throw new RequestException(ControlCodes.WrongState, $"there is nothing to wake: the VM is {State}");
        }

        _machine.Wake();
    }

    internal void Stop()
    {
        _stop.Cancel();
        if (_runner is null)
        {
            End(new WorkerExit(ExitReason.Stopped, 0, null));
        }
    }

    public void Dispose()
    {
        _stop.Cancel();
        Moves.Dispose(); // before the memory that it sends
        Paging.Dispose();
        Rehoming.Dispose();
        _runner?.Join();
        _machine.Dispose();
        Console.Dispose();
        _endFile?.Dispose();
        _stop.Dispose();
    }

    private static void Move(Action move)
    {
        try
        {
            move();
        }
        catch (VmStateException cause)
        {
            throw new RequestException(ControlCodes.WrongState, cause.Message, cause);
        }
    }

    private void Run(ManualResetEventSlim running)
    {
        RunResult result;
        try
        {
            result = _machine.Run(running.Set, _stop.Token);
        }
#pragma warning disable CA1031 // Whatever it was, it ends this VM with its reason.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            running.Set();
            result = new RunResult(ExitReason.Failed, Message: cause.Message);
        }

        End(new WorkerExit(result.Reason, result.ExitCode, result.Message, result.Report));
    }

    // The file first: from then on a daemon that is not here now learns the reason, too.
    private void End(WorkerExit exit)
    {
        if (Interlocked.CompareExchange(ref _exit, exit, null) is not null)
        {
            return;
        }

        if (_endFile is not null)
        {
            EndRecord.Write(_endFile.Bytes, exit); // memory that is there already: nothing that can fail
        }

        _ended(exit);
    }
}
