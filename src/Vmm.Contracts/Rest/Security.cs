namespace Vmm.Contracts.Rest;

/// <summary>What a principal may do; each one may do what those before it may.</summary>
public enum Role
{
    /// <summary>Look at everything that is not a secret.</summary>
    Viewer,

    /// <summary>Start, stop and use what there is.</summary>
    Operator,

    /// <summary>Make, change and delete, and give others access.</summary>
    Admin,
}

/// <summary>A wish for a token.</summary>
/// <param name="Name">Who or what will use it; 1 to 64 letters, digits, <c>. _ - @</c>. Unique.</param>
/// <param name="Role">What it allows.</param>
/// <param name="ExpiresInSeconds">How long it is good, seconds, at most ten years; null is 90 days.</param>
public sealed record TokenRequest(string Name, Role Role, long? ExpiresInSeconds = null);

/// <summary>A token, without its secret: the daemon does not have it.</summary>
/// <param name="Id">Names it in a DELETE.</param>
/// <param name="Name">Who or what uses it.</param>
/// <param name="Role">What it allows.</param>
/// <param name="Created">Since when it is good.</param>
/// <param name="Expires">Until when.</param>
public sealed record TokenInfo(string Id, string Name, Role Role, DateTimeOffset Created, DateTimeOffset Expires);

/// <summary>A token as it is given out, once.</summary>
/// <param name="Token">The text that goes into <c>Authorization: Bearer</c> (RFC 6750, section 2.1).</param>
/// <param name="Info">What the daemon keeps.</param>
public sealed record NewToken(string Token, TokenInfo Info);

/// <summary>All tokens, by name.</summary>
/// <param name="Tokens">The tokens.</param>
public sealed record TokenList(IReadOnlyList<TokenInfo> Tokens);
