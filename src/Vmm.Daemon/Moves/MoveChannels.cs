using Vmm.Interop;

namespace Vmm.Daemon.Moves;

/// <summary>Channels between two workers of this host: closed here as soon as both have their ends.</summary>
internal sealed class MoveChannels : IDisposable
{
    private readonly List<FileDescriptorHandle> _sources = [], _targets = [];

    /// <summary>Makes them.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    internal MoveChannels(int count)
    {
        try
        {
            for (int i = 0; i < count; i++)
            {
                (UnixStream one, FileDescriptorHandle other) = UnixStream.CreatePair();
                _sources.Add(one);
                _targets.Add(other);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The ends of the worker that has the VM.</summary>
    internal IReadOnlyList<FileDescriptorHandle> Sources => _sources;

    /// <summary>The ends of the one that gets it, in the same order.</summary>
    internal IReadOnlyList<FileDescriptorHandle> Targets => _targets;

    public void Dispose()
    {
        _sources.ForEach(end => end.Dispose());
        _targets.ForEach(end => end.Dispose());
    }
}
