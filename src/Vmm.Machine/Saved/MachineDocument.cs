using Vmm.Machine.Description;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// What a machine is and the state of its units in one document: <c>vm.json</c> of a saved VM, and what a move sends behind the memory.
/// </summary>
internal sealed class MachineDocument
{
    private const string DescriptionKind = "machine";

    private readonly string _name;

    private MachineDocument(string name, StateDocument state, StateReader about, MachineDescription description) =>
        (_name, State, About, Description) = (name, state, about, description);

    /// <summary>The state of the units.</summary>
    internal StateDocument State { get; }

    /// <summary>Records of the whole machine.</summary>
    internal StateReader About { get; }

    /// <summary>What the machine is, with its spec.</summary>
    internal MachineDescription Description { get; }

    private static string Program => typeof(MachineDocument).Assembly.GetName().Version?.ToString(3) ?? "";

    /// <summary>Writes one.</summary>
    /// <param name="description">What the machine is.</param>
    /// <param name="units">What its units saved.</param>
    /// <param name="add">Adds records of the whole machine; null: there are none.</param>
    internal static byte[] Write(MachineDescription description, IReadOnlyList<UnitBlob> units, Action<StateWriter>? add)
    {
        StateWriter about = new(new PartId(StateDocument.AboutName));
        about.WriteJson(DescriptionKind, MachineDescription.CurrentVersion, MachineDescriptionJson.Write(description));
        add?.Invoke(about);
        about.Write(MachineStates.Units, new SavedUnitsV1 { Names = [.. units.Select(blob => blob.Name.ToString())] });
        return StateDocumentWriter.Write(new StateDocument(Program, about.ToBlob(), units));
    }

    /// <summary>Reads one; it may have been written by anybody. The other records of the whole machine are read from it next.</summary>
    /// <param name="bytes">The document.</param>
    /// <param name="name">What errors call it.</param>
    /// <exception cref="StateException">It is none, is damaged, or of a version that this release does not read.</exception>
    internal static MachineDocument Read(byte[] bytes, string name)
    {
        StateDocument document = StateDocumentReader.Read(bytes);
        StateReader about = new(document.About);
        try
        {
            return new MachineDocument(
                name,
                document,
                about,
                MachineDescriptionJson.Read(about.ReadJson(DescriptionKind, MachineDescription.CurrentVersion)));
        }
        catch (InvalidDataException cause)
        {
            throw new StateException($"{name}: {cause.Message}", cause);
        }
    }

    /// <summary>Every unit that there was is there, and nothing that nobody knows. After all other records of the machine.</summary>
    /// <exception cref="StateException">It is not so.</exception>
    internal void RequireWhole()
    {
        SavedUnitsV1 had = About.Read(MachineStates.Units);
        About.RequireAllTaken();
        HashSet<string> there = [.. State.Units.Select(unit => unit.Name.ToString())];
        if (had.Names.FirstOrDefault(name => !there.Contains(name)) is { } lost)
        {
            throw new StateException($"{_name}: the state of {lost} is missing: the document is damaged or was changed.");
        }
    }
}
