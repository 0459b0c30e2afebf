namespace Vmm.Daemon.Moves;

/// <summary>How this vmmd and those of other hosts know each other.</summary>
/// <param name="Certificate">What this one shows to others (PEM, with its chain): a client certificate.</param>
/// <param name="Key">Its private key (PEM).</param>
/// <param name="Authority">Who signs the certificates of other vmmd (PEM).</param>
public sealed record PeerOptions(string Certificate, string Key, string Authority);
