namespace Vmm.Contracts.Rest;

/// <summary>An access token, without its text.</summary>
/// <param name="Id">UUID.</param>
/// <param name="Name">Whose it is.</param>
/// <param name="Role"><c>viewer</c>, <c>operator</c> or <c>admin</c>.</param>
/// <param name="Expires">From then on it opens nothing.</param>
public sealed record TokenInfo(string Id, string Name, string Role, DateTimeOffset Expires);

/// <summary>Access tokens, by name.</summary>
/// <param name="Tokens">The tokens.</param>
public sealed record TokenList(IReadOnlyList<TokenInfo> Tokens);

/// <summary>A token just made.</summary>
/// <param name="Info">What it is.</param>
/// <param name="Token">Its text: shown this once.</param>
public sealed record NewToken(TokenInfo Info, string Token);

/// <summary>A token that is wanted.</summary>
/// <param name="Name">Whose it will be.</param>
/// <param name="Role"><c>viewer</c>, <c>operator</c> or <c>admin</c>.</param>
/// <param name="Days">How long it will be good, 1 to 3650 days.</param>
public sealed record TokenWish(string Name, string Role, int Days = 90);
