using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Machine.Resources;
using Vmm.Spec;

namespace Vmm.Machine.Saved;

/// <summary>The files of a saved VM as somebody with more privileges made or opened and passed them.</summary>
/// <param name="passed">All that was passed; each file is taken once.</param>
public sealed class PassedFiles(DescriptorResources passed) : ISavedStore, ISavedSource, IDisposable
{
    private readonly List<SafeFileHandle> _written = [];

    /// <inheritdoc/>
    public string Name => "the saved VM";

    /// <inheritdoc/>
    public void RequireRoom(ulong bytes)
    {
        // Whoever made the files looked whether there is room.
    }

    /// <inheritdoc/>
    public SafeFileHandle Create(string name)
    {
        SafeFileHandle file = TryOpen(name) ?? throw new IOException($"the file {name} of the saved VM was not passed");
        _written.Add(file);
        return file;
    }

    /// <inheritdoc/>
    public SafeFileHandle? TryOpen(string name)
    {
        if (!passed.TryTake(ResourceNames.Saved(name), out FileDescriptorHandle? descriptor))
        {
            return null;
        }

        using (descriptor)
        {
            return new SafeFileHandle(descriptor.Detach(), ownsHandle: true);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _written.ForEach(file => file.Dispose());
}
