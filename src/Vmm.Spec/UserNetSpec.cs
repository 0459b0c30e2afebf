namespace Vmm.Spec;

/// <summary>
/// User-mode networking: the guest reaches what the host reaches, by a program that turns its frames into sockets (passt). Needs no
/// privileges and nothing prepared on the host.
/// </summary>
public sealed record UserNetSpec
{
    /// <summary>The largest MTU that passt knows, and the usual one: the fewer frames, the less each byte costs.</summary>
    public const int MostMtu = 65520;

    /// <summary>Most entries of <see cref="Publish"/>.</summary>
    public const int MostPublished = 64;

    /// <summary>Ports of the host that lead to the guest, each a <see cref="PublishedPort"/> as text.</summary>
    public IReadOnlyList<string> Publish { get; init; } = [];
}
