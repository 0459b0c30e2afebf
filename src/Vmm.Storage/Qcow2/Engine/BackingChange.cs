namespace Vmm.Storage.Qcow2;

/// <summary>Another name in the top image's header, which the thread of its metadata writes. One thread waits for the end of it.</summary>
/// <param name="name">The backing file as the image shall name it; null: none.</param>
/// <param name="format">Its format.</param>
internal sealed class BackingChange(string? name, string? format)
{
    private readonly object _gate = new();
    private BlockException? _failure;
    private bool _isOver;

    /// <summary>Writes it. On the metadata's thread.</summary>
    internal void Run(IImageFile file)
    {
        try
        {
            BackingName.Write(file, name, format);
            End(null);
        }
        catch (BlockException error)
        {
            End(error);
        }
    }

    /// <summary>It is in the file and stable, or it failed.</summary>
    internal void End(BlockException? failure)
    {
        lock (_gate)
        {
            (_failure, _isOver) = (failure, true);
            Monitor.Pulse(_gate);
        }
    }

    /// <summary>Waits for the end.</summary>
    /// <exception cref="BlockException">It failed.</exception>
    internal void Wait()
    {
        lock (_gate)
        {
            while (!_isOver)
            {
                Monitor.Wait(_gate);
            }
        }

        if (_failure is not null)
        {
            throw new BlockException(_failure.Kind, _failure.Message, _failure) { Path = _failure.Path, Status = _failure.Status };
        }
    }
}
