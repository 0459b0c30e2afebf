using System.Text.Json.Serialization;

namespace Vmm.Spec;

/// <summary>What becomes of writes that a server acknowledged and had not made stable when its connection was lost.</summary>
public enum UnflushedPolicy
{
    /// <summary>They may be lost: the next flush fails, and the guest knows.</summary>
    Fail,

    /// <summary>The server has them when it is back: it writes through, or only the network fails.</summary>
    Trust,
}

/// <summary>TLS of an NBD disk: certificates, or a pre-shared key.</summary>
public sealed record NbdTlsSpec
{
    /// <summary>
    /// Folder with ca-cert.pem and, for a server that asks, client-cert.pem and client-key.pem; null with a pre-shared key.
    /// </summary>
    public string? Certificates { get; init; }

    /// <summary>File of pre-shared keys (<c>user:key</c> a line); null with certificates.</summary>
    public string? Psk { get; init; }

    /// <summary>Whose key of that file; null is the name of the user who runs the program.</summary>
    public string? User { get; init; }

    /// <summary>
    /// The server's certificate is to be checked, which is not possible yet: <see cref="Certificates"/> need false. A pre-shared key proves
    /// both sides.
    /// </summary>
    public bool Verify { get; init; } = true;
}

/// <summary>A disk of a server that speaks the Network Block Device protocol.</summary>
public sealed record NbdSpec
{
    /// <summary>The port of NBD servers.</summary>
    public const int UsualPort = 10809;

    /// <summary>Host name or address; null with <see cref="Socket"/>.</summary>
    public string? Host { get; init; }

    /// <summary>Port of the host.</summary>
    public int Port { get; init; } = UsualPort;

    /// <summary>Unix socket at which the server listens; null with <see cref="Host"/>.</summary>
    public string? Socket { get; init; }

    /// <summary>Name of the export; empty is the server's default.</summary>
    public string Export { get; init; } = "";

    /// <summary>TLS; null is none.</summary>
    public NbdTlsSpec? Tls { get; init; }

    /// <summary>Seconds for which requests are held when the connection is lost, before they fail.</summary>
    public int Reconnect { get; init; } = 60;

    /// <summary>A server that leaves a command without an answer for so many seconds is taken for lost.</summary>
    public int Timeout { get; init; } = 30;

    /// <summary>Writes that were not flushed when the connection was lost.</summary>
    public UnflushedPolicy Unflushed { get; init; }

    /// <summary>
    /// The disk's name for people, and its form on the command line: <c>nbd://host:port/export</c> or
    /// <c>nbd+unix:///export?socket=PATH</c>.
    /// </summary>
    [JsonIgnore]
    public string Uri => NbdUri.Write(this);
}
