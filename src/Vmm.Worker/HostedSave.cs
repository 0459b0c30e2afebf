using Vmm.Contracts.Control;
using Vmm.LifeCycle;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Worker;

/// <summary>Saves of the VM into files that were passed, and the way back.</summary>
/// <param name="machine">The machine.</param>
/// <param name="stop">The VM is being ended.</param>
internal sealed class HostedSave(VirtualMachine machine, CancellationToken stop)
{
    private static readonly TimeSpan s_restTime = TimeSpan.FromSeconds(60); // for its devices to come to rest

    private readonly Lock _lock = new();
    private CancellationTokenSource? _cancel;
    private MachineRest? _rest; // after a save, until it is resumed

    /// <summary>Builds a machine from passed files of a saved VM.</summary>
    /// <param name="spec">What was opened for it now.</param>
    /// <param name="passed">Its files, and what is behind its devices.</param>
    /// <param name="console">Far side of the consoles.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    /// <param name="lazily">Its memory comes from the files while it runs.</param>
    /// <exception cref="StateException">The saved VM is damaged, or does not fit.</exception>
    /// <exception cref="UnitsException">Parts of the machine did not take their state.</exception>
    internal static VirtualMachine Restore(
        VmSpec spec, DescriptorResources passed, IConsoleEndpoint console, EmptyVm? prepared, bool lazily)
    {
        using PassedFiles files = new(passed);
        SavedMachine saved;
        try
        {
            saved = SavedMachine.Read(files);
            saved.RequireSameDisks(spec);
        }
        catch
        {
            prepared?.Dispose();
            throw;
        }

        return saved.Restore(passed, console, prepared, lazily);
    }

    /// <summary>
    /// Writes the VM into passed files. When this returns, the VM is at rest: what was written is true until <see cref="Forget"/>. When it
    /// throws, the VM is as it was before.
    /// </summary>
    /// <exception cref="RequestException">It cannot be saved.</exception>
    internal void Save(DescriptorResources passed)
    {
        using PassedFiles files = new(passed);
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(stop);
        lock (_lock)
        {
            if (_rest is not null)
            {
                throw new RequestException(ControlCodes.WrongState, "the VM is saved already: it is resumed or stopped first");
            }

            _cancel = cancel;
        }

        try
        {
            MachineRest rest = MachineSave.SaveAsync(machine, files, s_restTime, null, cancel.Token).GetAwaiter().GetResult();
            lock (_lock)
            {
                _rest = rest;
            }
        }
        catch (VmStateException cause)
        {
            throw new RequestException(ControlCodes.WrongState, cause.Message, cause);
        }
        catch (OperationCanceledException cause)
        {
            throw new RequestException(ControlCodes.SaveFailed, "the save was given up", cause);
        }
        catch (Exception cause) when (cause is StateException or UnitsException or IOException or UnauthorizedAccessException)
        {
            throw new RequestException(ControlCodes.SaveFailed, cause.Message, cause);
        }
        finally
        {
            lock (_lock)
            {
                _cancel = null;
            }
        }
    }

    /// <summary>The VM rests after a save. Any thread.</summary>
    internal bool IsResting
    {
        get
        {
            lock (_lock)
            {
                return _rest is not null;
            }
        }
    }

    /// <summary>Gives up the save that goes on, when one does. Any thread.</summary>
    internal void Cancel()
    {
        lock (_lock)
        {
            _cancel?.Cancel();
        }
    }

    /// <summary>The VM goes on as it was before the save: what was written is not true any more.</summary>
    internal void Forget() => TryForget();

    /// <summary>As <see cref="Forget"/>.</summary>
    /// <returns>False: it did not rest after a save.</returns>
    internal bool TryForget()
    {
        MachineRest? rest;
        lock (_lock)
        {
            rest = _rest;
            _rest = null;
        }

        rest?.End();
        return rest is not null;
    }
}
