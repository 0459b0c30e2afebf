namespace Vmm.Spec;

/// <summary>
/// An image of a Ceph cluster in a line: <c>rbd:POOL[/NAMESPACE]/IMAGE[?conf=FILE&amp;user=NAME&amp;keyring=FILE]</c>; and a pool of one,
/// as vmmd's settings name those that disks may be in, the same without the image.
/// </summary>
public static class RbdUri
{
    private const string Scheme = "rbd:", Conf = "conf", User = "user", Keyring = "keyring";

    /// <summary>The text is meant to be one.</summary>
    public static bool Is(string text) => text.StartsWith(Scheme, StringComparison.Ordinal);

    /// <summary>Reads one. False, and what is wrong, for anything else.</summary>
    public static bool TryRead(string text, out RbdSpec rbd, out string problem)
    {
        if (!TryReadParts(text, out string[] place, out rbd, out problem))
        {
            return false;
        }

        if (place.Length is not (2 or 3))
        {
            problem = "expected rbd:POOL/IMAGE or rbd:POOL/NAMESPACE/IMAGE";
            return false;
        }

        rbd = rbd with { Pool = place[0], Namespace = place.Length == 3 ? place[1] : "", Image = place[^1] };
        return true;
    }

    /// <summary>Reads a pool, as <see cref="RbdSpec"/> without an image. False, and what is wrong, for anything else.</summary>
    public static bool TryReadPool(string text, out RbdSpec pool, out string problem)
    {
        if (!TryReadParts(text, out string[] place, out pool, out problem))
        {
            return false;
        }

        if (place is not ({ Length: 1 or 2 } and [{ Length: > 0 }, ..]))
        {
            problem = "expected rbd:POOL or rbd:POOL/NAMESPACE";
            return false;
        }

        pool = pool with { Pool = place[0], Namespace = place.Length == 2 ? place[1] : "" };
        return true;
    }

    /// <summary>The pool of a disk, in the form of <see cref="TryReadPool"/>.</summary>
    public static string PoolOf(RbdSpec rbd) => Write(rbd with { Image = "" });

    internal static string Write(RbdSpec rbd)
    {
        string[] place = [.. new[] { rbd.Pool, rbd.Namespace, rbd.Image }.Where(part => part.Length > 0).Select(Escape)];
        string[] query =
        [
            .. rbd.Conf is RbdSpec.UsualConf ? (string[])[] : [$"{Conf}={Escape(rbd.Conf)}"],
            .. rbd.User is RbdSpec.UsualUser ? (string[])[] : [$"{User}={Escape(rbd.User)}"],
            .. rbd.Keyring is null ? (string[])[] : [$"{Keyring}={Escape(rbd.Keyring)}"],
        ];
        return Scheme + string.Join('/', place) + (query.Length == 0 ? "" : "?" + string.Join('&', query));
    }

    private static string Escape(string text) => string.Join("%2F", text.Split('/').Select(Uri.EscapeDataString)).Replace(
        "%2F", "/", StringComparison.Ordinal);

    private static bool TryReadParts(string text, out string[] place, out RbdSpec rbd, out string problem)
    {
        (rbd, problem, place) = (new RbdSpec(), "", []);
        if (!Is(text))
        {
            problem = "expected rbd:POOL/IMAGE";
            return false;
        }

        string rest = text[Scheme.Length..];
        int query = rest.IndexOf('?', StringComparison.Ordinal);
        place = [.. (query < 0 ? rest : rest[..query]).Split('/').Select(Uri.UnescapeDataString)];
        foreach (string part in query < 0 ? [] : rest[(query + 1)..].Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? part : part[..equals], value = equals < 0 ? "" : Uri.UnescapeDataString(part[(equals + 1)..]);
            switch (key)
            {
                case Conf:
                    rbd = rbd with { Conf = value };
                    break;
                case User:
                    rbd = rbd with { User = value };
                    break;
                case Keyring:
                    rbd = rbd with { Keyring = value };
                    break;
                default:
                    problem = $"{key}: unknown here; known: {Conf}, {User}, {Keyring}";
                    return false;
            }
        }

        return true;
    }
}
