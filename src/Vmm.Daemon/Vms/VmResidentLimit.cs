using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>The resident limit of a running VM, and whether its pages go out.</summary>
/// <param name="vm">The VM.</param>
/// <param name="admit">Throws when the host's memory is promised to others.</param>
internal sealed class VmResidentLimit(VmSupervisor vm, Func<VmSpec, IDisposable> admit) : IRunObserver
{
    private bool _stopped; // of this run; under the lock of _turn
    private readonly Lock _turn = new();

    public void RunBegan(IWorker worker)
    {
        lock (_turn)
        {
            _stopped = false;
        }

        worker.OnPagingStopped(reason => OnStopped(worker, reason));
    }

    public void RunEnded()
    {
    }

    /// <summary>Changes the limit of the running VM and of its spec.</summary>
    /// <param name="wish">A size, or a percentage of its memory.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It does not run, has no limit, or cannot have this one.</exception>
    internal Task ChangeAsync(string wish, CancellationToken cancellation)
    {
        if (!MemoryPortion.TryParse(wish, out MemoryPortion portion))
        {
            throw Impossible($"resident {Contracts.SafeText.Line(wish, 64)}: expected a size such as 256MiB, or a percentage such as 25%");
        }

        return vm.Operations.RunAsync(VmOperation.LimitMemory, vm.Name, async () =>
        {
            IWorker worker = vm.RequireWorker();
            if (vm.Store.RequireSpec().Paging is not { } paging)
            {
                throw new ApiException(409, ControlCodes.NoResidentLimit, "the VM has no resident limit",
                    $"{vm.Name} was started without one: give it one while it is off (memory: {{resident: 25%}})");
            }

            (string text, VmSpec spec) = SpecDevices.Edit(
                vm.Store,
                (old, folder) => SpecEdit.SetResident(old, folder, portion),
                old => old with { Paging = paging with { Resident = portion } });
            ByteSize limit = spec.ResidentLimit;
            using IDisposable promised = admit(spec);
            ByteSize before = vm.Store.RequireSpec().ResidentLimit;
            await CallAsync(() => worker.MemoryAsync(new MemoryWish(ResidentBytes: limit), cancellation)).ConfigureAwait(false);
            try
            {
                vm.Store.WriteSpec(text, spec);
            }
            catch
            {
                // The one in force is the one of the spec, or the next daemon promises other memory than the VM has.
                MemoryWish back = new(ResidentBytes: before);
                await CallAsync(() => worker.MemoryAsync(back, CancellationToken.None)).ConfigureAwait(false);
                throw;
            }

            string now = portion.Size is null ? $"{portion.ToString()}, {limit.ToString()}" : limit.ToString();
            vm.Events.Publish("resident-limit", vm.Name, message: $"at most {now} of its memory is resident from now on");
            DaemonLog.ResidentLimit(vm.Log, vm.Name, now);
        }, cancellation);
    }

    /// <summary>
    /// Changes the limit in force and not the spec, for the pressure loop. It does not wait for other commands: one that goes on is left
    /// alone.
    /// </summary>
    /// <param name="configured">The limit of the spec that the decision was made for.</param>
    /// <param name="bytes">The limit.</param>
    /// <param name="reason">Why.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It does not run, is busy, has another limit meanwhile, or cannot have this one.</exception>
    internal Task PressAsync(ulong configured, ulong bytes, string reason, CancellationToken cancellation) =>
        vm.Operations.TryRunAsync(VmOperation.LimitMemory, vm.Name, async () =>
        {
            IWorker worker = vm.RequireWorker();
            if (vm.Store.RequireSpec() is not { Paging: not null } spec || spec.ResidentLimit.Bytes != configured)
            {
                throw vm.WrongState("got another resident limit meanwhile");
            }

            MemoryWish wish = new(ResidentBytes: bytes, Reason: bytes == configured ? null : reason);
            await CallAsync(() => worker.MemoryAsync(wish, cancellation)).ConfigureAwait(false);
        }, cancellation);

    /// <summary>What a worker says of its pager, with what its spec says beside that.</summary>
    internal PagingInfo? Describe(PagingInfo? paging) => paging is not null && vm.Store.Spec is { Paging: not null } spec
        ? paging with { ConfiguredBytes = spec.ResidentLimit.Bytes, MinResidentBytes = spec.MinResident.Bytes }
        : paging;

    /// <summary>A worker that was taken over may say so without end: what was said already is not told again.</summary>
    private void OnStopped(IWorker worker, string? reason)
    {
        if (!vm.IsCurrent(worker) || vm.Store.Spec?.Paging is null)
        {
            return;
        }

        lock (_turn)
        {
            if (_stopped == reason is not null)
            {
                return;
            }

            _stopped = reason is not null;
        }

        vm.Events.Publish(reason is null ? "paging-goes-on" : "paging-stopped", vm.Name,
            message: reason is null ? "pages go out again" : $"no page goes out any more, its memory may exceed its limit: {reason}");
        DaemonLog.PagingStopped(vm.Log, vm.Name, reason ?? "pages go out again");
    }

    private ApiException Impossible(string why) =>
        new(422, ControlCodes.MemoryImpossible, "a limit that the VM cannot have", $"{vm.Name}: {why}");
}
