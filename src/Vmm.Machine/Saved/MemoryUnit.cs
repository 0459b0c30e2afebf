using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// What the host does with the guest's memory, as a unit: it comes to rest before any device and goes on after all. Until then no page is
/// given back to the host, nobody is asked for memory, and none moves to other host nodes.
/// </summary>
/// <param name="machine">The machine.</param>
/// <param name="dependsOn">Its devices.</param>
internal sealed class MemoryUnit(VirtualMachine machine, IReadOnlyList<PartId> dependsOn) : IMachinePart
{
    private IDisposable? _discards;

    /// <inheritdoc/>
    public PartId Id { get; } = new("memory");

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => dependsOn;

    /// <inheritdoc/>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline)
    {
        deadline.Token.ThrowIfCancellationRequested();
        machine.Sizes.Hold();
        try
        {
            _discards = machine.MapOwner.Discards.Inhibit("the VM is being saved");
            machine.Board.Homes.Gate.Hold(deadline.Token);
            return ValueTask.CompletedTask;
        }
        catch
        {
            Resume(); // the registry's may have come while this waited
            throw;
        }
    }

    /// <inheritdoc/>
    public void Resume()
    {
        machine.Board.Homes.Gate.Resume();
        Interlocked.Exchange(ref _discards, null)?.Dispose();
        machine.Sizes.Resume();
    }

    /// <inheritdoc/>
    public void Save(StateWriter to) => to.Write(MachineStates.VnodeSizes, machine.Sizes.Capture());

    /// <inheritdoc/>
    public void Restore(StateReader from) => machine.Sizes.Restore(from.Read(MachineStates.VnodeSizes));

    /// <inheritdoc/>
    public string Describe() => "memory: sizes, pages given back, moves between host nodes";
}
