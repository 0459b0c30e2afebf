using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Access tokens.</summary>
public static class TokenRequests
{
    /// <summary>All access tokens.</summary>
    public static Task<TokenList> TokensAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "tokens", null, RestJson.Default.TokenList, cancellation);

    /// <summary>Makes an access token.</summary>
    public static Task<NewToken> CreateTokenAsync(this VmmClient client, TokenWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post, "tokens", JsonSerializer.Serialize(wish, RestJson.Default.TokenWish), RestJson.Default.NewToken, cancellation);

    /// <summary>Makes an access token open nothing from now on.</summary>
    public static Task DeleteTokenAsync(this VmmClient client, string id, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, "tokens/" + Uri.EscapeDataString(id), null, cancellation);
}
