using Vmm.Daemon.Access;

namespace Vmm.Daemon.Inventory;

/// <summary>What the inventory keeps of one access token.</summary>
/// <param name="Id">UUID.</param>
/// <param name="Name">Whose it is, for people.</param>
/// <param name="Role">What it allows.</param>
/// <param name="Hash">SHA-256 of its text.</param>
/// <param name="Expires">From then on it opens nothing.</param>
public sealed record TokenRecord(string Id, string Name, Role Role, byte[] Hash, DateTimeOffset Expires);
