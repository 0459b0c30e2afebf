using Microsoft.Win32.SafeHandles;
using Vmm.Machine.Description;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>A saved machine in its folder, read and checked as far as that needs no machine.</summary>
public sealed class SavedMachine
{
    private readonly ISavedSource _source;
    private readonly StateDocument _document;
    private readonly SavedMemoryV1 _memory;
    private readonly SavedHotMemoryV1? _hot;

    private SavedMachine(
        ISavedSource source, StateDocument document, MachineDescription description, SavedMemoryV1 memory, SavedHotMemoryV1? hot) =>
        (_source, _document, Description, _memory, _hot) = (source, document, description, memory, hot);

    /// <summary>What the machine is, with its spec.</summary>
    public MachineDescription Description { get; }

    /// <summary>Reads a saved machine.</summary>
    /// <param name="folder">Its folder.</param>
    /// <exception cref="StateException">It is none, is damaged, or of a version that this release does not read.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static SavedMachine Read(string folder) => Read(new SavedFolderSource(folder));

    /// <summary>Reads a saved machine.</summary>
    /// <param name="source">Where its files are.</param>
    /// <exception cref="StateException">It is none, is damaged, or of a version that this release does not read.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static SavedMachine Read(ISavedSource source)
    {
        string path = Path.Combine(source.Name, SavedVmFiles.Document);
        MachineDocument document = MachineDocument.Read(ReadDocument(source, path), path);
        SavedMemoryV1 memory = document.About.Read(MachineStates.Memory);
        SavedHotMemoryV1? hot = document.About.TryRead(MachineStates.HotMemory);
        document.RequireWhole();
        return memory.ChunkBytes == MemoryImage.ChunkBytes
            ? new SavedMachine(source, document.State, document.Description, memory, hot)
            : throw new StateException($"{path}: chunks of {memory.ChunkBytes} bytes; this release reads {MemoryImage.ChunkBytes}.");
    }

    /// <summary>Refuses images below its disks that are others than it had.</summary>
    /// <param name="spec">Its spec, with the images that there are now (<see cref="DiskSpec.Backing"/>).</param>
    /// <exception cref="StateException">A disk has another format, or an image below it is another one.</exception>
    public void RequireSameDisks(VmSpec spec) => SameDisks.Require(Description.Spec, spec);

    /// <summary>Builds the machine, gives it its memory and its state. It goes on where it was when it is run.</summary>
    /// <param name="resources">Where everything comes from; kernel and initrd are not asked for.</param>
    /// <param name="console">Far side of the consoles.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    /// <param name="progress">Hears which part of the memory is read, 0 to 1; null: nobody.</param>
    /// <param name="cancel">Gives up.</param>
    /// <exception cref="StateException">The state does not fit this host or what is behind its devices.</exception>
    /// <exception cref="UnitsException">Parts of the machine did not take their state.</exception>
    public VirtualMachine Restore(
        IMachineResources resources,
        IConsoleEndpoint console,
        EmptyVm? prepared = null,
        Action<double>? progress = null,
        CancellationToken cancel = default)
    {
        VirtualMachine machine = VirtualMachine.CreateWithoutBoot(Description, resources, console, prepared);
        try
        {
            ReadMemory(MemoryPart.Of(machine), progress, cancel);
            GiveState(machine, _document);
            return machine;
        }
        catch
        {
            machine.Dispose();
            throw;
        }
    }

    private static byte[] ReadDocument(ISavedSource source, string path)
    {
        using SafeFileHandle file = source.TryOpen(SavedVmFiles.Document)
            ?? throw new StateException($"{source.Name} is no saved VM: it has no {SavedVmFiles.Document}.");
        long length = RandomAccess.GetLength(file);
        if (length > StateDocument.MaxBytes)
        {
            throw new StateException($"{path}: the document has more than {StateDocument.MaxBytes} bytes.");
        }

        byte[] bytes = new byte[length];
        for (int done = 0; done < bytes.Length;)
        {
            int count = RandomAccess.Read(file, bytes.AsSpan(done), done);
            done += count > 0 ? count : throw new StateException($"{path}: the file ends at {done}.");
        }

        return bytes;
    }

    /// <summary>
    /// Gives the units of a machine without boot their state. When it is run, they and the guest's clock go on, and the guest is told that
    /// it was paused.
    /// </summary>
    /// <exception cref="UnitsException">Parts of the machine did not take their state.</exception>
    internal static void GiveState(VirtualMachine machine, StateDocument document)
    {
        UnitRegistry units = MachineUnits.Of(machine, atRest: true);
        units.Restore(document.Units);
        machine.Board.Restored = () =>
        {
            machine.Board.Restored = null;
            machine.Board.Clock.Start();
            units.Resume();
            machine.VcpuSet.NotifyPaused();
        };
    }

    private void ReadMemory(IReadOnlyList<MemoryPart> memories, Action<double>? progress, CancellationToken cancel)
    {
        List<SavedVnodeV1> files = [.. _memory.Vnodes, .. _hot?.Vnodes ?? []];
        if (files.Count != memories.Count)
        {
            throw new StateException($"The saved VM has {files.Count} memory files, its machine {memories.Count} memories.");
        }

        ulong total = 0, done = 0;
        foreach (MemoryPart memory in memories)
        {
            total += memory.Bytes;
        }

        foreach (MemoryPart memory in memories)
        {
            IReadOnlyList<SavedVnodeV1> those = memory.Device is null ? _memory.Vnodes : _hot?.Vnodes ?? [];
            SavedVnodeV1 saved = those.FirstOrDefault(v => v.Vnode == memory.Vnode)
                ?? throw new StateException($"The saved VM has no {memory.FileName} of vnode {memory.Vnode}.");
            string path = Path.Combine(_source.Name, memory.FileName);
            using SafeFileHandle file = _source.TryOpen(memory.FileName) ?? throw new StateException($"{path} is missing.");
            MemoryImage.Read(memory.Memory, file, saved, path, bytes => progress?.Invoke((double)(done += bytes) / total), cancel);
        }
    }
}
