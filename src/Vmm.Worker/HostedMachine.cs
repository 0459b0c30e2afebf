using Vmm.Contracts.Control;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Layout;
using Vmm.Machine.Numa;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>A request cannot be done; becomes an error answer.</summary>
internal sealed class RequestException(string code, string message, Exception? cause = null) : Exception(message, cause)
{
    internal string Code { get; } = code;
}

/// <summary>The VM of this worker: the machine, its console, the thread that waits for its end, and the record of that end.</summary>
internal sealed partial class HostedMachine : IDisposable
{
    private readonly VirtualMachine _machine;
    private readonly SharedFileMapping? _endFile;
    private readonly CancellationTokenSource _stop = new();
    private readonly Action<WorkerExit> _ended;
    private Thread? _runner;
    private WorkerExit? _exit;

    private HostedMachine(string vmId, VirtualMachine machine, ConsoleHub console, SharedFileMapping? endFile, Action<WorkerExit> ended)
    {
        VmId = vmId;
        _machine = machine;
        Rehoming = new Rehoming(machine);
        Console = console;
        _endFile = endFile;
        _ended = ended;
        _machine.DeviceRemoved += Tell;
    }

    internal string VmId { get; }

    /// <summary>Rings that its devices use at most: those that only wait, and those of disks.</summary>
    internal (int Waiting, int Disks) RingsNeeded => (_machine.WaitingRingsNeeded, _machine.DiskRingsNeeded);

    /// <summary>What its parts ask of the kernel.</summary>
    internal MachineNeeds Needs => _machine.Needs;

    internal ConsoleHub Console { get; }

    /// <summary>Moves vnodes to other host nodes.</summary>
    internal Rehoming Rehoming { get; }

    /// <summary>Where the vnodes are meant to be.</summary>
    internal WorkerNuma Numa
    {
        get
        {
            IReadOnlyList<HomedThread> threads = _machine.HomedThreads;
            List<VnodeHomeInfo> vnodes = [];
            foreach (VnodeHome home in _machine.Homes)
            {
                VnodePlacement memory = home.Memory;
                string policy = memory.Policy switch
                {
                    MemoryPolicyMode.Bind => "strict",
                    MemoryPolicyMode.Preferred => "preferred",
                    MemoryPolicyMode.Interleave => "interleave",
                    _ => "auto",
                };
                vnodes.Add(new VnodeHomeInfo(memory.Vnode, memory.HostNodes, policy, memory.PageSize, home.HostCpus, [.. threads.Where(t => t.Vnode == memory.Vnode).Select(t => new HomedThreadInfo(t.Name, t.Id))]));
            }

            return new WorkerNuma(vnodes, Rehoming.Status, _machine.Fit is { } fit ? Info(fit) : null);
        }
    }

    private static NumaFitInfo Info(NumaFitResult fit) =>
        new([.. fit.Vnodes.Select(v => new VnodeFitInfo(v.Vnode, Names.Of(v.Outcome), NumberSet.Format(v.Wanted), [.. v.Shares.Select(s => new NodeBytes(s.Node, s.Bytes))], v.Text))], fit.Distances.Percent, fit.Distances.Text);

    internal WorkerState State => Volatile.Read(ref _exit) is not null ? WorkerState.Ended : _machine.State switch
    {
        MachineState.Ready => WorkerState.Ready,
        MachineState.Paused => WorkerState.Paused,
        MachineState.Crashed => WorkerState.Crashed,
        _ => WorkerState.Running, // also between the last instruction and the written end
    };

    /// <summary>Builds the VM from a spec and passed descriptors.</summary>
    /// <exception cref="RequestException">It cannot be built.</exception>
    /// <param name="body">Who it is.</param>
    /// <param name="resources">What it is made of.</param>
    /// <param name="endFile">Takes the record of its end (<see cref="EndRecord"/>), owned by this method; null when nobody will ask.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on; null makes one.</param>
    /// <param name="ended">Called once.</param>
    internal static HostedMachine Create(CreateBody body, IMachineResources resources, FileDescriptorHandle? endFile, EmptyVm? prepared, Action<WorkerExit> ended)
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
                end = endFile is null ? null : new SharedFileMapping(endFile, EndRecord.Length); // the guest never lives beside a descriptor that could make the file longer
            }

            return new HostedMachine(body.VmId, VirtualMachine.Create(spec, resources, console, prepared), console, end, ended);
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
                KvmUnavailableException => new RequestException(ControlCodes.KvmUnavailable, cause.Message, cause),
                KernelException => new RequestException(ControlCodes.ResourceRefused, cause.Message, cause),
                HostMismatchException or ArgumentException => new RequestException(ControlCodes.HostMismatch, cause.Message, cause),
                _ => cause,
            };
        }
    }

    internal void Start()
    {
        if (_runner is not null || State != WorkerState.Ready)
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

    internal void Resume() => Move(_machine.Resume);

    internal void PressPowerButton()
    {
        if (State is not (WorkerState.Running or WorkerState.Paused))
        {
            throw new RequestException(ControlCodes.WrongState, $"the power button does nothing: the VM is {State}");
        }

        _machine.PressPowerButton();
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
        _machine.DiskFaulted += (_, fault) => told(new DiskErrorBody(fault.Disk, fault.Status == DiskStatus.NoSpace ? DiskFault.NoSpace : DiskFault.IoError));

    internal void Wake()
    {
        if (State is not (WorkerState.Running or WorkerState.Paused))
        {
            throw new RequestException(ControlCodes.WrongState, $"there is nothing to wake: the VM is {State}");
        }

        _machine.Wake();
    }

    /// <summary>Limits a device from now on.</summary>
    /// <exception cref="RequestException">There is no such device, or a number is out of range.</exception>
    internal void SetLimits(LimitsBody body)
    {
        DeviceLimits limits = body.Limits;
        try
        {
            _machine.SetLimit(body.Device, new Vmm.Devices.Virtio.RateLimit(limits.BytesPerSecond ?? 0, limits.OperationsPerSecond ?? 0, limits.BurstBytes ?? 0, limits.BurstOperations ?? 0));
        }
        catch (ArgumentException cause)
        {
            // What a programmer wants to know more is nothing for the user.
            throw new RequestException(ControlCodes.LimitsImpossible, cause.Message.Replace($" (Parameter '{cause.ParamName}')", "", StringComparison.Ordinal), cause);
        }
    }

    /// <summary>The memory of the VM as it is.</summary>
    internal VmMemory Memory
    {
        get
        {
            List<VnodeMemoryInfo> vnodes = [];
            foreach (VnodeMemoryState vnode in _machine.VnodeStates)
            {
                ulong stuck = vnode.Present > vnode.Asked ? vnode.Present - vnode.Asked : 0;
                vnodes.Add(new VnodeMemoryInfo(vnode.Vnode, vnode.Least, vnode.Most, vnode.Asked, vnode.Present, stuck, vnode.Driven, vnode.Block, vnode.Below, vnode.HeldBack));
            }

            BalloonInfo? balloon = _machine.Balloon?.Info();
            _machine.Balloon?.RequestStatistics(); // for who asks next
            return new VmMemory(vnodes, balloon is null ? null : new BalloonMemoryInfo(balloon.TargetBytes, balloon.ActualBytes, balloon.HeldBytes, balloon.Guest?.FreeBytes, balloon.Guest?.AvailableBytes, balloon.Guest?.TotalBytes,
                balloon.Guest is { } said ? Math.Max(0, (long)(DateTimeOffset.UtcNow - said.At).TotalMilliseconds) : null));
        }
    }

    /// <summary>Passes a wish on to the guest.</summary>
    /// <exception cref="RequestException">It cannot be fulfilled whatever the guest does.</exception>
    internal void SetMemory(MemoryWish wish)
    {
        if (wish.BalloonBytes is not null && _machine.Balloon is null)
        {
            throw new RequestException(ControlCodes.NoBalloon, "the VM has no balloon: give it one in its spec (balloon: true)");
        }

        try
        {
            if (wish is { Bytes: { } size, BalloonBytes: not null } && _machine.VnodeStates is [var only] && size < only.Least)
            {
                throw new VnodeMemoryException($"{new ByteSize(size)} is below {only.Least}, which only the balloon reaches: give either the size of the vnode or that of the balloon");
            }

            if (wish.Bytes is { } bytes)
            {
                _machine.SetVnodeMemory(wish.Vnode ?? 0, new ByteSize(bytes), wish.Force == true);
            }

            if (wish.BalloonBytes is { } balloon)
            {
                _machine.SetBalloon(balloon);
            }
        }
        catch (VnodeMemoryException cause)
        {
            throw new RequestException(ControlCodes.MemoryImpossible, cause.Message, cause);
        }
    }

    internal void Stop()
    {
        _stop.Cancel();
        if (_runner is null)
        {
            End(new WorkerExit(WorkerExitReason.Stopped, 0, null));
        }
    }

    internal WorkerStats Stats(long residentBytes)
    {
        MachineCounters counters = _machine.Counters;
        DiskStats[] disks = new DiskStats[counters.Disks.Count];
        for (int i = 0; i < disks.Length; i++)
        {
            (string name, BlkCounters disk) = counters.Disks[i];
            disks[i] = new DiskStats(name, disk.Reads, disk.ReadBytes, disk.Writes, disk.WrittenBytes, disk.Flushes, disk.Errors);
        }

        return new WorkerStats((long)Environment.CpuUsage.TotalTime.TotalMilliseconds, residentBytes, counters.Exits, disks, Nets(counters.Nets));
    }

    private static NetStats[] Nets(IReadOnlyList<NetDeviceCounters> counters)
    {
        NetStats[] nets = new NetStats[counters.Count];
        for (int i = 0; i < nets.Length; i++)
        {
            (string name, Vmm.Devices.Virtio.Net.NetCounters net, string? kernelTap) = counters[i];
            nets[i] = new NetStats(name, net.ReceivedPackets, net.ReceivedBytes, net.SentPackets, net.SentBytes, net.Dropped, kernelTap);
        }

        return nets;
    }

    public void Dispose()
    {
        _stop.Cancel();
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
        catch (MachineStateException cause)
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
            result = new RunResult(RunOutcome.Failed, Message: cause.Message);
        }

        End(new WorkerExit(
            result.Outcome switch
            {
                RunOutcome.PowerOff => WorkerExitReason.PowerOff,
                RunOutcome.Reset => WorkerExitReason.Reset,
                RunOutcome.DebugExit => WorkerExitReason.DebugExit,
                RunOutcome.Stopped => WorkerExitReason.Stopped,
                RunOutcome.TripleFault => WorkerExitReason.TripleFault,
                RunOutcome.Panicked => WorkerExitReason.GuestPanicked,
                _ => WorkerExitReason.Failed,
            },
            result.ExitCode,
            result.Message,
            result.Report));
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
