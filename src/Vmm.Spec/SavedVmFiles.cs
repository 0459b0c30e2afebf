using System.Globalization;

namespace Vmm.Spec;

/// <summary>Names of the files of a saved VM (docs/saved-state.md). Who runs the VM writes them, who manages it makes and passes
/// them.</summary>
public static class SavedVmFiles
{
    /// <summary>The document: what the machine is, and the state of its units.</summary>
    public const string Document = "vm.json";

    /// <summary>What vmmd knows of the VM: written and read by vmmd alone.</summary>
    public const string Record = "vmmd.json";

    /// <summary>The memory of a vnode.</summary>
    public static string Memory(int vnode) => string.Create(CultureInfo.InvariantCulture, $"memory-{vnode}.bin");

    /// <summary>The memory of a vnode that comes and goes.</summary>
    public static string HotMemory(int vnode) => string.Create(CultureInfo.InvariantCulture, $"memory-{vnode}-hot.bin");

    /// <summary>All files that whoever runs a VM of this spec may write.</summary>
    public static IReadOnlyList<string> Of(VmSpec spec)
    {
        List<string> names = [Document];
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        for (int i = 0; i < vnodes.Count; i++)
        {
            names.Add(Memory(i));
            if (vnodes[i].HotMemory > 0)
            {
                names.Add(HotMemory(i));
            }
        }

        return names;
    }
}
