using System.Buffers.Binary;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Machine.Tests.Saved;

/// <summary>Changes a saved machine as somebody could who knows its format: all checksums fit again.</summary>
internal static class SavedDocument
{
    /// <summary>The content of a MiB of memory that comes and goes is what the file has now.</summary>
    internal static void ForgeChecksum(string saved, int vnode, int mib) => Change(saved, StateDocument.AboutName, record =>
    {
        if (record.Kind != MachineStates.HotMemory.Kind)
        {
            return record;
        }

        StateReader reader = new(new UnitBlob(new PartId(StateDocument.AboutName), [record]));
        SavedHotMemoryV1 hot = reader.Read(MachineStates.HotMemory);
        byte[] content = new byte[1 << 20];
        using (FileStream file = File.OpenRead(Path.Combine(saved, SavedVmFiles.HotMemory(vnode))))
        {
            file.Position = (long)mib << 20;
            file.ReadExactly(content);
        }

        byte[] checksums = hot.Vnodes.Single(v => v.Vnode == vnode).Checksums;
        BinaryPrimitives.WriteUInt32LittleEndian(checksums.AsSpan(mib * sizeof(uint)), Crc32C.Of(content));
        StateWriter writer = new(new PartId(StateDocument.AboutName));
        writer.Write(MachineStates.HotMemory, hot);
        return writer.ToBlob().Records[0];
    });

    /// <summary>Changes the records of a unit.</summary>
    internal static void Change(string saved, string unit, Func<StateRecord, StateRecord> change)
    {
        string path = Path.Combine(saved, SavedVmFiles.Document);
        StateDocument document = StateDocumentReader.Read(File.ReadAllBytes(path));
        UnitBlob Changed(UnitBlob blob) =>
            blob.Name.ToString() == unit ? blob with { Records = [.. blob.Records.Select(change)] } : blob;
        File.WriteAllBytes(
            path,
            StateDocumentWriter.Write(new StateDocument(document.Program, Changed(document.About), [.. document.Units.Select(Changed)])));
    }
}
