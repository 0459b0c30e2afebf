using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Inventory;

/// <summary>What the inventory keeps of a token: enough to recognize it, not to make it.</summary>
internal sealed record TokenRecord(TokenInfo Info, byte[] Salt, byte[] Hash);
