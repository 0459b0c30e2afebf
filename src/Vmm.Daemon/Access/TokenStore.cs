using System.Security.Cryptography;
using System.Text;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;

namespace Vmm.Daemon.Access;

/// <summary>
/// Access tokens. A token is 32 random bytes, so a plain SHA-256 of it gives nothing away; only that is kept. Thread-safe.
/// </summary>
internal sealed class TokenStore(TokenTable tokens)
{
    private readonly Revocations _revocations = new();

    private const string Prefix = "vmm_";

    /// <summary>
    /// The token that hashes to the same, when it has not expired. Looks at all of them, whatever it finds: the time it takes tells
    /// nothing.
    /// </summary>
    internal TokenRecord? Find(string token, DateTimeOffset now)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(Encoding.UTF8.GetBytes(token.Length <= 256 ? token : ""), hash);
        TokenRecord? found = null;
        foreach (TokenRecord record in tokens.All())
        {
            if (CryptographicOperations.FixedTimeEquals(hash, record.Hash))
            {
                found = record;
            }
        }

        return found is not null && found.Expires > now ? found : null;
    }

    /// <summary>Makes one; the answer has its text, which nobody can get again.</summary>
    internal NewToken Create(string name, Role role, TimeSpan lifetime)
    {
        string text = Prefix + Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
        // whole seconds, as the inventory keeps it
        DateTimeOffset expires = DateTimeOffset.FromUnixTimeSeconds((DateTimeOffset.UtcNow + lifetime).ToUnixTimeSeconds());
        TokenRecord record = new(Guid.NewGuid().ToString(), name, role, SHA256.HashData(Encoding.UTF8.GetBytes(text)), expires);
        tokens.Add(record);
        return new NewToken(Describe(record), text);
    }

    internal TokenList List() => new([.. tokens.All().Select(Describe)]);

    /// <summary>Takes it out, and ends what it has open. False when there is none of this id.</summary>
    internal bool Remove(string id)
    {
        bool removed = tokens.Remove(id);
        _revocations.End(id);
        return removed;
    }

    /// <summary>Cancelled when the token of this id is taken out.</summary>
    internal CancellationToken Watch(string id) =>
        _revocations.Watch(id, () => tokens.All().Any(t => string.Equals(t.Id, id, StringComparison.Ordinal)));

    private static TokenInfo Describe(TokenRecord record) =>
        new(record.Id, record.Name, record.Role.ToString().ToLowerInvariant(), record.Expires);
}
