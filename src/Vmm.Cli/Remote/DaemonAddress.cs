using Vmm.Contracts.Rest;

namespace Vmm.Cli.Remote;

/// <summary>Which daemon is asked, and as whom.</summary>
/// <param name="Host"><c>unix:///PATH</c> or <c>https://NAME:PORT</c>.</param>
/// <param name="TokenFile">File with the bearer token; null for none.</param>
/// <param name="Certificate">Client certificate, PEM; null for none.</param>
/// <param name="Key">Its private key; null when it is in the certificate's file.</param>
/// <param name="Authority">Certificate of the authority the daemon's must come from; null for the system's.</param>
internal sealed record DaemonAddress(string Host, string? TokenFile = null, string? Certificate = null, string? Key = null, string? Authority = null)
{
    private const string Unix = "unix:";

    /// <summary>The socket's path, null for a remote daemon. <c>unix:PATH</c>, <c>unix://PATH</c> and a plain path are all understood.</summary>
    internal string? Socket
    {
        get
        {
            string path = Host.StartsWith(Unix, StringComparison.Ordinal) ? Host[Unix.Length..] : Host;
            return path.StartsWith("//", StringComparison.Ordinal) && path.Length < Host.Length ? path[2..] : path.Contains("://", StringComparison.Ordinal) ? null : path;
        }
    }

    /// <summary>A client for it; connects with the first request.</summary>
    /// <exception cref="UsageException">The address is not one.</exception>
    internal VmmClient Open()
    {
        if (Socket is { } socket)
        {
            return socket.StartsWith('/') ? new VmmClient(socket) : throw new UsageException($"--host {Host}: expected unix:///PATH or https://NAME:PORT");
        }

        throw new UsageException($"--host {Host}: expected unix:///PATH or https://NAME:PORT");
    }
}
