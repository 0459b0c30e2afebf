using Microsoft.Win32.SafeHandles;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// Writes a whole machine into a folder. Disks are not copied: they stay where they are, and must not change until the restore.
/// </summary>
public static class MachineSave
{
    private const ulong DocumentRoom = 64 << 20;

    /// <summary>
    /// Saves a machine that runs or is paused into a folder. When it fails, or the machine is to go on, it is as it was before: it runs on,
    /// or is paused.
    /// </summary>
    /// <param name="machine">The machine.</param>
    /// <param name="path">The folder to make.</param>
    /// <param name="time">How long its devices may take to come to rest.</param>
    /// <param name="goOn">False: when the save worked, the machine stays at rest, and can only be ended. Its saved state is the only one
    /// that may go on.</param>
    /// <param name="progress">Hears which part of the memory is written, 0 to 1; null: nobody.</param>
    /// <param name="cancel">Gives up.</param>
    /// <exception cref="VmStateException">It neither runs nor is paused.</exception>
    /// <exception cref="UnitsException">Parts of it did not come to rest, or could not be saved.</exception>
    /// <exception cref="StateException">It has something without a saved form.</exception>
    /// <exception cref="IOException">The folder cannot be written.</exception>
    public static async Task SaveAsync(
        VirtualMachine machine, string path, TimeSpan time, bool goOn, Action<double>? progress = null, CancellationToken cancel = default)
    {
        using SavedFolder folder = new(path);
        MachineRest rest = await SaveAsync(machine, folder, time, progress, cancel).ConfigureAwait(false);
        bool staysAtRest = false;
        try
        {
            folder.Commit();
            staysAtRest = !goOn;
        }
        finally
        {
            if (!staysAtRest)
            {
                rest.End();
            }
        }
    }

    /// <summary>Writes a machine that runs or is paused into files. When it fails, the machine is as it was before.</summary>
    /// <param name="machine">The machine.</param>
    /// <param name="store">Where to.</param>
    /// <param name="time">How long its devices may take to come to rest.</param>
    /// <param name="progress">Hears which part of the memory is written, 0 to 1; null: nobody.</param>
    /// <param name="cancel">Gives up.</param>
    /// <returns>The machine at rest: it is ended as it is, or its rest is ended and what was written is thrown away.</returns>
    /// <inheritdoc cref="SaveAsync(VirtualMachine, string, TimeSpan, bool, Action{double}?, CancellationToken)" path="/exception"/>
    public static async Task<MachineRest> SaveAsync(
        VirtualMachine machine, ISavedStore store, TimeSpan time, Action<double>? progress = null, CancellationToken cancel = default)
    {
        MachineRest rest = await MachineRest.BeginAsync(machine, time, cancel).ConfigureAwait(false);
        try
        {
            Write(machine, rest.Units, store, progress, cancel);
            return rest;
        }
        catch
        {
            rest.End();
            throw;
        }
    }

    private static void Write(
        VirtualMachine machine, UnitRegistry units, ISavedStore store, Action<double>? progress, CancellationToken cancel)
    {
        IReadOnlyList<UnitBlob> blobs = units.Save();
        IReadOnlyList<MemoryPart> memories = MemoryPart.Of(machine);
        ulong data = 0, total = 0, done = 0;
        foreach (MemoryPart memory in memories)
        {
            data += MemoryImage.DataBytes(memory);
            total += memory.Bytes;
        }

        store.RequireRoom(data + DocumentRoom);
        List<SavedVnodeV1> files = [], hot = [];
        foreach (MemoryPart memory in memories)
        {
            SafeFileHandle file = store.Create(memory.FileName);
            byte[] checksums = MemoryImage.Write(memory, file, bytes => progress?.Invoke((double)(done += bytes) / total), cancel);
            (memory.Device is null ? files : hot).Add(
                new SavedVnodeV1 { Vnode = memory.Vnode, Bytes = memory.Bytes, Checksums = checksums });
        }

        byte[] document = MachineDocument.Write(machine.Description, blobs, about =>
        {
            about.Write(MachineStates.Memory, new SavedMemoryV1 { ChunkBytes = MemoryImage.ChunkBytes, Vnodes = files });
            if (hot.Count > 0)
            {
                about.Write(MachineStates.HotMemory, new SavedHotMemoryV1 { Vnodes = hot });
            }
        });
        RandomAccess.Write(store.Create(SavedVmFiles.Document), document, 0);
    }
}
