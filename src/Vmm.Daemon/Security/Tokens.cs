using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Security;

/// <summary>
/// Bearer tokens (RFC 6750): <c>vmm_ID_SECRET</c>. The id finds the record, the 256 random bits behind it are kept as a salted SHA-256 only: nothing
/// that anybody could guess needs a slower hash.
/// </summary>
internal sealed class Tokens(VmInventory inventory, TimeProvider clock)
{
    internal const int MaxLength = 100;
    private const string Prefix = "vmm_";
    private const int IdBytes = 8, SecretBytes = 32, SaltBytes = 16;
    private const long DefaultSeconds = 90L * 24 * 3600, MostSeconds = 3650L * 24 * 3600;

    /// <summary>Makes one; its text is in the answer and nowhere else.</summary>
    /// <exception cref="ApiException">The wish makes no sense, or the name is taken.</exception>
    internal NewToken Create(TokenRequest wish)
    {
        long seconds = wish.ExpiresInSeconds ?? DefaultSeconds;
        string? wrong = wish.Name is not { Length: > 0 and <= 64 } name || !name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-' or '@') ? "name: expected 1 to 64 letters, digits, . _ - @"
            : !Enum.IsDefined(wish.Role) ? "role: expected Viewer, Operator or Admin"
            : seconds is < 1 or > MostSeconds ? $"expiresInSeconds: expected 1 to {MostSeconds}"
            : null;
        if (wrong is not null)
        {
            throw new ApiException(422, "token-invalid", "such a token cannot be made", wrong);
        }

        string id = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(IdBytes)), secret = Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(SecretBytes));
        byte[] salt = RandomNumberGenerator.GetBytes(SaltBytes);
        DateTimeOffset now = DateTimeOffset.FromUnixTimeSeconds(clock.GetUtcNow().ToUnixTimeSeconds());
        TokenRecord record = new(new TokenInfo(id, wish.Name, wish.Role, now, now.AddSeconds(seconds)), salt, Hash(salt, secret));
        return inventory.AddToken(record)
            ? new NewToken($"{Prefix}{id}_{secret}", record.Info)
            : throw new ApiException(409, "name-taken", "the name is taken", $"{wish.Name}: there is a token of this name: delete it first");
    }

    /// <summary>All, by name.</summary>
    internal TokenList List() => new(inventory.Tokens());

    /// <summary>Revokes one.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal void Remove(string id)
    {
        if (!inventory.RemoveToken(id))
        {
            throw new ApiException(404, "token-not-found", "no such token", $"{id}: there is no token with this id");
        }
    }

    /// <summary>The token behind a text, when it is good now. What is wrong with it is nobody's business: unknown, wrong and expired take the same way.</summary>
    internal TokenInfo? Check(string text)
    {
        if (text.Length > MaxLength || !text.StartsWith(Prefix, StringComparison.Ordinal))
        {
            return null;
        }

        int end = text.IndexOf('_', Prefix.Length);
        string id = end < 0 ? "" : text[Prefix.Length..end], secret = end < 0 ? "" : text[(end + 1)..];
        TokenRecord? record = inventory.FindToken(id);
        byte[] hash = Hash(record?.Salt ?? new byte[SaltBytes], secret);
        bool same = CryptographicOperations.FixedTimeEquals(hash, record?.Hash ?? new byte[SHA256.HashSizeInBytes]);
        return same && record is not null && clock.GetUtcNow() < record.Info.Expires ? record.Info : null;
    }

    private static byte[] Hash(byte[] salt, string secret) => SHA256.HashData([.. salt, .. Encoding.UTF8.GetBytes(secret)]);
}
