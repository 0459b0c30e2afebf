using Vmm.Interop;

namespace Vmm.Storage.Nbd;

/// <summary>A disk of an NBD server.</summary>
public sealed record NbdOptions
{
    /// <summary>What messages call it: the address and the export.</summary>
    public required string Name { get; init; }

    /// <summary>The export; empty is the server's default.</summary>
    public string Export { get; init; } = "";

    /// <summary>TLS; null is none.</summary>
    public NbdTls? Tls { get; init; }

    /// <summary>Refuse writes, whatever the server allows.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>How long requests are held when the connection is lost, before they fail.</summary>
    public TimeSpan Reconnect { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>
    /// A server that leaves a command without an answer for so long is taken for lost, one that does not greet for half of it.
    /// </summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// A server that comes back has what it acknowledged, flushed or not: it writes through, or only the network fails. Without this the
    /// next flush after a connection was lost fails, once.
    /// </summary>
    public bool KeepsUnflushed { get; init; }

    /// <summary>Called when the connection is lost and when it is back; on the disk's thread.</summary>
    public Action<NbdReport>? Changed { get; init; }
}

/// <summary>What happened to a connection.</summary>
/// <param name="IsConnected">It is back; false: it is lost, or could not be made again in time.</param>
/// <param name="IsGivenUp">Requests fail from now on, until it is back.</param>
/// <param name="Why">What is wrong; null when nothing is.</param>
public readonly record struct NbdReport(bool IsConnected, bool IsGivenUp, string? Why);

/// <summary>Makes connected sockets to the one server of a disk: this process by itself, or somebody who is asked for them.</summary>
public interface INbdConnector
{
    /// <summary>Connects.</summary>
    /// <exception cref="IOException">It cannot be connected; says why.</exception>
    Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel);
}
