using Vmm.Interop;

namespace Vmm.Machine.Ram;

/// <summary>
/// The memory of a machine that another process of this host has, by its files, in the order in which memory is made: that of the start by
/// vnode, then that which comes and goes. Disposing closes what nobody took.
/// </summary>
/// <param name="files">The files; owned.</param>
internal sealed class PassedMemory(IReadOnlyList<FileDescriptorHandle> files) : IDisposable
{
    private int _taken;

    /// <summary>The next one, the caller's.</summary>
    /// <exception cref="InvalidDataException">There is none.</exception>
    internal FileDescriptorHandle Take() => _taken < files.Count
        ? files[_taken++]
        : throw new InvalidDataException($"the VM has more memories than the {files.Count} that came");

    /// <exception cref="InvalidDataException">Some are left: it is another machine's memory.</exception>
    internal void RequireAllTaken()
    {
        if (_taken < files.Count)
        {
            throw new InvalidDataException($"{files.Count} memories came, and the VM has {_taken}");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        while (_taken < files.Count)
        {
            files[_taken++].Dispose();
        }
    }
}
