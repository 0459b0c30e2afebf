using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Vmm.Daemon.Api;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Access;

/// <summary>
/// Recognises who sends a request: the process at the other end of a unix socket, the owner of a client certificate, or of a token.
/// </summary>
internal sealed class Gatekeeper(DaemonOptions options, TokenStore tokens)
{
    private const string Bearer = "Bearer ";

    private readonly Revocations _revocations = new();
    private volatile IReadOnlyList<CertificatePrincipal> _certificates = options.Certificates;
    private readonly uint? _operators = HostAccounts.FindGroup(options.OperatorsGroup),
        _viewers = HostAccounts.FindGroup(options.ViewersGroup);

    /// <summary>Who it is.</summary>
    /// <exception cref="ApiException">Nobody that is known: 401, with the same words whatever was wrong, or 403 for a known process without
    /// a role.</exception>
    internal Principal Recognise(HttpContext context)
    {
        string authorization = context.Request.Headers.Authorization.ToString();
        if (authorization.Length > 0)
        {
            return authorization.StartsWith(Bearer, StringComparison.OrdinalIgnoreCase)
                && tokens.Find(authorization[Bearer.Length..].Trim(), DateTimeOffset.UtcNow) is { } token
                ? new Principal("token:" + token.Name, token.Role) { Expires = token.Expires, Watch = () => tokens.Watch(token.Id) }
                : throw Unknown();
        }

        if (context.Connection.ClientCertificate is { } certificate)
        {
            return OwnerOf(certificate) ?? throw Unknown();
        }

        if (context.Connection.LocalIpAddress is null && context.Features.Get<IConnectionSocketFeature>() is { } connection
            && Peer.Of(connection.Socket) is { } peer)
        {
            return RoleOf(peer) is { } role
                ? new Principal($"uid={peer.UserId}", role)
                : throw new ApiException(403, "forbidden", "not allowed",
                    $"uid={peer.UserId} may not use this daemon: run as root, or join the group {options.OperatorsGroup}");
        }

        throw Unknown();
    }

    /// <summary>
    /// Knows these certificates from now on, and no others: what those that are gone, or have another owner or role now, have open ends.
    /// </summary>
    internal void Replace(IReadOnlyList<CertificatePrincipal> certificates)
    {
        IReadOnlyList<CertificatePrincipal> before = _certificates;
        _certificates = certificates;
        foreach (CertificatePrincipal gone in before.Except(certificates))
        {
            _revocations.End(gone.Sha256);
        }
    }

    private Role? RoleOf(Peer peer) =>
        options.Allows(peer) ? Role.Admin
        : _operators is { } operators && peer.IsMember(operators) ? Role.Operator
        : _viewers is { } viewers && peer.IsMember(viewers) ? Role.Viewer
        : null;

    private Principal? OwnerOf(X509Certificate2 certificate)
    {
        string fingerprint = Convert.ToHexStringLower(SHA256.HashData(certificate.RawDataMemory.Span));
        CertificatePrincipal? owner = _certificates.FirstOrDefault(c => string.Equals(c.Sha256, fingerprint, StringComparison.Ordinal));
        DateTimeOffset end = new(certificate.NotAfter); // the handshake looked, too; a connection lasts longer
        return owner is null || end <= DateTimeOffset.UtcNow ? null : new Principal("certificate:" + owner.Name, owner.Role)
        {
            Expires = end,
            Watch = () => _revocations.Watch(fingerprint, () => _certificates.Contains(owner))
        };
    }

    private static ApiException Unknown() =>
        new(401, "unauthenticated", "not recognised", "no valid client certificate or token: ask an administrator of this host for one");
}
