using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Interop;

namespace Vmm.Daemon.Security;

/// <summary>Finds out who makes a request: by token, else by client certificate, else by what the kernel says about the other end of the unix socket.</summary>
internal sealed class Authenticator(DaemonOptions options, Tokens tokens)
{
    private const string Scheme = "Bearer ";

    private readonly uint? _operatorGroup = GroupNumber(options.OperatorGroup);

    /// <summary>Who it is.</summary>
    /// <exception cref="ApiException">401: nobody; 403: somebody without a role.</exception>
    internal Principal Identify(HttpContext context)
    {
        Socket? socket = context.Features.Get<IConnectionSocketFeature>()?.Socket;
        PeerCredentials? peer = socket is null ? null : PeerCredentials.Of(socket);
        string source = SourceOf(context, peer);
        // A token that is shown counts, also beside a certificate or on the unix socket: the client chose whom to be.
        if (context.Request.Headers.Authorization is { Count: > 0 } header)
        {
            return header is [{ } text] && text.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase) && tokens.Check(text[Scheme.Length..].Trim()) is { } token
                ? new Principal("token:" + token.Name, token.Role, source)
                : throw Nobody();
        }

        if (peer is { } local)
        {
            return new Principal("uid:" + local.UserId.ToString(System.Globalization.CultureInfo.InvariantCulture), RoleOf(local, socket!) ?? throw Roleless(), source);
        }

        X509Certificate2 certificate = context.Connection.ClientCertificate ?? throw Nobody();
        CertificateRule rule = options.Principals.FirstOrDefault(r => Fits(r, certificate)) ?? throw Roleless();
        return new Principal("certificate:" + rule.Name, rule.Role, source);
    }

    /// <summary>Where a request comes from, also one whose maker is not known.</summary>
    internal static string SourceOf(HttpContext context)
    {
        Socket? socket = context.Features.Get<IConnectionSocketFeature>()?.Socket;
        return SourceOf(context, socket is null ? null : PeerCredentials.Of(socket));
    }

    private static string SourceOf(HttpContext context, PeerCredentials? peer) => peer is { } local
        ? string.Create(System.Globalization.CultureInfo.InvariantCulture, $"unix:uid={local.UserId},pid={local.ProcessId}")
        : $"{context.Connection.RemoteIpAddress}:{context.Connection.RemotePort}";

    private Role? RoleOf(PeerCredentials peer, Socket socket) =>
        peer.UserId == 0 || peer.UserId == DaemonOptions.OwnUser ? Role.Admin
        : _operatorGroup is { } group && peer.HasGroup(socket, group) ? Role.Operator
        : null;

    private static bool Fits(CertificateRule rule, X509Certificate2 certificate)
    {
        int colon = rule.Certificate.IndexOf(':', StringComparison.Ordinal);
        string value = rule.Certificate[(colon + 1)..];
        return rule.Certificate[..colon] switch
        {
            "sha256" => string.Equals(certificate.GetCertHashString(HashAlgorithmName.SHA256), value.Replace(":", "", StringComparison.Ordinal), StringComparison.OrdinalIgnoreCase),
            "cn" => Names(certificate, "2.5.4.3").Contains(value, StringComparer.Ordinal),
            "ou" => Names(certificate, "2.5.4.11").Contains(value, StringComparer.Ordinal),
            _ => false,
        };
    }

    /// <summary>The values of one attribute of the subject (RFC 5280, section 4.1.2.6), read from its encoding: its text form can be made to say anything.</summary>
    private static IEnumerable<string> Names(X509Certificate2 certificate, string oid) => certificate.SubjectName.EnumerateRelativeDistinguishedNames()
        .Where(name => !name.HasMultipleElements && string.Equals(name.GetSingleElementType().Value, oid, StringComparison.Ordinal))
        .Select(name => name.GetSingleElementValue() ?? "");

    private static ApiException Nobody() => new(401, "not-authenticated", "not authenticated", "show a token that is good, or a client certificate");

    private static ApiException Roleless() => new(403, "forbidden", "not allowed", "you have no role here: on this machine be root, the daemon's user or in its operator group; from elsewhere use a certificate or token that has one");

    private static uint? GroupNumber(string name)
    {
        if (name.Length > 0 && File.Exists("/etc/group"))
        {
            foreach (string line in File.ReadLines("/etc/group"))
            {
                if (line.Split(':') is [string group, _, string number, ..] && string.Equals(group, name, StringComparison.Ordinal) && uint.TryParse(number, out uint id))
                {
                    return id;
                }
            }
        }

        return null;
    }
}
