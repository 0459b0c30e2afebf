using Microsoft.Win32.SafeHandles;

namespace Vmm.Machine.Saved;

/// <summary>Where a saved VM is written to.</summary>
public interface ISavedStore
{
    /// <summary>Refuses a save for which there is no room, before it begins.</summary>
    /// <exception cref="IOException">There is too little room.</exception>
    void RequireRoom(ulong bytes);

    /// <summary>An empty file of this name (<see cref="Vmm.Spec.SavedVmFiles"/>), owned by the store.</summary>
    /// <exception cref="IOException">It cannot be made.</exception>
    SafeFileHandle Create(string name);
}
