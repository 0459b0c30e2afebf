using System.Globalization;

namespace Vmm.Spec;

/// <summary>An NBD disk as a URI, as other programs write it (NetworkBlockDevice/nbd, doc/uri.md).</summary>
public static class NbdUri
{
    private const string Socket = "socket", Certificates = "tls-certificates", Psk = "tls-psk-file";

    private static readonly string[] s_schemes = ["nbd://", "nbds://", "nbd+unix://", "nbds+unix://"];

    /// <summary>The text is meant to be one.</summary>
    public static bool Is(string text) => s_schemes.Any(scheme => text.StartsWith(scheme, StringComparison.Ordinal));

    /// <summary>Reads one. False, and what is wrong, for anything else.</summary>
    public static bool TryRead(string text, out NbdSpec nbd, out string problem)
    {
        nbd = new NbdSpec();
        string? scheme = s_schemes.FirstOrDefault(s => text.StartsWith(s, StringComparison.Ordinal));
        if (scheme is null)
        {
            problem = "expected nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH";
            return false;
        }

        string rest = text[scheme.Length..];
        int query = rest.IndexOf('?', StringComparison.Ordinal);
        string place = query < 0 ? rest : rest[..query];
        int slash = place.IndexOf('/', StringComparison.Ordinal);
        string server = slash < 0 ? place : place[..slash];
        nbd = nbd with
        {
            Export = slash < 0 ? "" : Uri.UnescapeDataString(place[(slash + 1)..]),
            Tls = scheme.StartsWith("nbds", StringComparison.Ordinal) ? new NbdTlsSpec() : null,
        };
        return TakeQuery(query < 0 ? "" : rest[(query + 1)..], ref nbd, out problem)
            && TakeServer(server, isUnix: scheme.Contains("unix", StringComparison.Ordinal), ref nbd, out problem);
    }

    internal static string Write(NbdSpec nbd)
    {
        string scheme = nbd.Tls is null ? "nbd" : "nbds", export = Escape(nbd.Export);
        string host = nbd.Host?.Contains(':', StringComparison.Ordinal) == true ? $"[{nbd.Host}]" : nbd.Host ?? "";
        string port = nbd.Port == NbdSpec.UsualPort ? "" : string.Create(CultureInfo.InvariantCulture, $":{nbd.Port}");
        return nbd.Socket is { } socket ? $"{scheme}+unix:///{export}?socket={Escape(socket)}" : $"{scheme}://{host}{port}/{export}";
    }

    private static string Escape(string text) => string.Join('/', text.Split('/').Select(Uri.EscapeDataString));

    private static bool TakeQuery(string query, ref NbdSpec nbd, out string problem)
    {
        problem = "";
        foreach (string part in query.Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? part : part[..equals], value = equals < 0 ? "" : Uri.UnescapeDataString(part[(equals + 1)..]);
            switch (key)
            {
                case Socket:
                    nbd = nbd with { Socket = value };
                    break;
                case Certificates when nbd.Tls is { } tls:
                    nbd = nbd with { Tls = tls with { Certificates = value } };
                    break;
                case Psk when nbd.Tls is { } tls:
                    nbd = nbd with { Tls = tls with { Psk = value } };
                    break;
                default:
                    problem = $"{key}: unknown in this URI; known: {Socket}, and with nbds {Certificates}, {Psk}";
                    return false;
            }
        }

        return true;
    }

    private static bool TakeServer(string server, bool isUnix, ref NbdSpec nbd, out string problem)
    {
        problem = (isUnix, server.Length) switch
        {
            (true, > 0) => "a unix socket has no host: nbd+unix:///EXPORT?socket=PATH",
            (true, _) when nbd.Socket is null => "socket=PATH is missing",
            (false, _) when nbd.Socket is not null => "socket belongs to nbd+unix",
            (false, 0) => "the host is missing",
            _ => "",
        };
        if (isUnix || problem.Length > 0)
        {
            return problem.Length == 0;
        }

        int colon = server.LastIndexOf(':'), bracket = server.LastIndexOf(']');
        string host = colon > bracket ? server[..colon] : server;
        if (colon > bracket)
        {
            if (!int.TryParse(server[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out int port) || port is 0 or > 65535)
            {
                problem = $"{server[(colon + 1)..]}: no port";
                return false;
            }

            nbd = nbd with { Port = port };
        }

        nbd = nbd with { Host = host is ['[', .. var inner, ']'] ? inner : host };
        return true;
    }
}
