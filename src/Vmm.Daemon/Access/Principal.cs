namespace Vmm.Daemon.Access;

/// <summary>What somebody may do; each may all that the ones before it may.</summary>
public enum Role
{
    /// <summary>Another vmmd: it may move VMs to this one, and nothing else; nobody but administrators may do that besides.</summary>
    Peer = -1,

    /// <summary>Look.</summary>
    Viewer = 0,

    /// <summary>Start and stop, use consoles, change memory of what runs.</summary>
    Operator,

    /// <summary>Everything.</summary>
    Admin,
}

/// <summary>Somebody who was recognised.</summary>
/// <param name="Name">As it stands in the audit log: <c>uid=0</c>, <c>certificate:NAME</c>, <c>token:NAME</c>.</param>
/// <param name="Role">What they may do.</param>
public sealed record Principal(string Name, Role Role)
{
    /// <summary>When the time of their token or certificate is over; null is never.</summary>
    public DateTimeOffset? Expires { get; init; }

    /// <summary>Gives what is cancelled when their token or certificate is revoked; null for who has neither.</summary>
    internal Func<CancellationToken>? Watch { get; init; }
}

/// <summary>A client certificate that the configuration knows.</summary>
/// <param name="Name">Its owner's name, for the audit log.</param>
/// <param name="Role">What its owner may do.</param>
/// <param name="Sha256">SHA-256 of the certificate (DER), hexadecimal, lower case.</param>
public sealed record CertificatePrincipal(string Name, Role Role, string Sha256);

/// <summary>On every route: the least role that may use it.</summary>
/// <param name="Least">The role; null is open to everybody who can connect.</param>
internal sealed record RouteRole(Role? Least);
