using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Nbd;

/// <summary>
/// A disk of an NBD server. All its nodes share one connection, which a thread of the disk has: a flush that one of them asks for covers
/// the writes of all, also at a server that does not promise that for several connections.
/// </summary>
public sealed class NbdBackend : IDiskBackend
{
    private readonly NbdLink _link;
    private int _nodes;

    private NbdBackend(NbdLink link) => _link = link;

    /// <inheritdoc/>
    public BlockGeometry Geometry => _link.Shape!.Geometry;

    /// <summary>
    /// Without space at the server it is tried again, and what failed since the server was away when it is back; not what it failed itself.
    /// </summary>
    public bool CanGoOn(DiskStatus fault) => _link.IsConnected && (fault == DiskStatus.NoSpace || _link.Requests.FailedByLoss);

    /// <summary>Connects, and asks the server what it has.</summary>
    /// <param name="options">The disk.</param>
    /// <param name="connector">Who connects, now and when the connection is lost.</param>
    /// <exception cref="BlockException">There is no libnbd (says what to install); there is no such server, it does not let us in, or no
    /// disk can be made of what it has.</exception>
    public static NbdBackend Open(NbdOptions options, INbdConnector connector)
    {
        try
        {
            NbdLibrary.Load();
        }
        catch (NbdUnavailableException missing)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {options.Name}: {missing.Message}", missing) { Path = options.Name };
        }

        NbdLink link = new(options, connector);
        try
        {
            link.Open();
            return new NbdBackend(link);
        }
        catch
        {
            link.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        NbdNode node = new(this, _link, loop, depth);
        Interlocked.Increment(ref _nodes);
        return node;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_nodes != 0)
        {
            throw new InvalidOperationException("The disk still has nodes.");
        }

        _link.Dispose();
    }

    /// <summary>A node is gone.</summary>
    internal void Left() => Interlocked.Decrement(ref _nodes);
}
