namespace Vmm.LifeCycle;

/// <summary>
/// Where a VM stands in its life: for the daemon and its clients, for the worker that runs it, and for the machine in that. Who knows less
/// uses fewer of them. The names are the words of the REST interface: none is removed or renamed.
/// </summary>
public enum VmState
{
    /// <summary>Known, never started since it was created or changed. A worker: it has no VM yet.</summary>
    Defined,

    /// <summary>Its worker is set up, its machine is built: nothing of the guest ran yet.</summary>
    Starting,

    /// <summary>Its vCPUs run.</summary>
    Running,

    /// <summary>Its vCPUs stand still between two instructions and can go on.</summary>
    Paused,

    /// <summary>It is being stopped.</summary>
    Stopping,

    /// <summary>
    /// It ended: the guest powered off or reset, or somebody stopped it. A machine that is over is always this: whether its end was a
    /// fault, the <see cref="ExitReason"/> says.
    /// </summary>
    Stopped,

    /// <summary>It ended by a fault; its <see cref="ExitReason"/> says which.</summary>
    Failed,

    /// <summary>
    /// Its guest's kernel panicked. With a machine it is preserved, its vCPUs stand still for good; without one it is over.
    /// </summary>
    Crashed,

    /// <summary>It stands still and is being written into a folder.</summary>
    Saving,

    /// <summary>It is in a folder, and a restore goes on with it.</summary>
    Saved,

    /// <summary>It moves to another worker: it runs, or is paused, until the last part of that.</summary>
    Migrating,
}

/// <summary>What can be said of a state alone.</summary>
public static class VmStates
{
    /// <summary>The state as people and <c>/metrics</c> have it: its name in small letters.</summary>
    public static string Word(this VmState state) => state.ToString().ToLowerInvariant();

    /// <summary>Its guest is there, and runs or can go on.</summary>
    public static bool IsUp(this VmState state) => state is VmState.Running or VmState.Paused;

    /// <summary>True while a worker may hold the VM.</summary>
    /// <param name="state">Its state.</param>
    /// <param name="hasWorker">Whether there is one: a crashed VM has it while it is preserved.</param>
    public static bool IsAlive(this VmState state, bool hasWorker) =>
        state is VmState.Starting or VmState.Running or VmState.Paused or VmState.Saving or VmState.Migrating
                or VmState.Stopping
            || (state == VmState.Crashed && hasWorker);
}
