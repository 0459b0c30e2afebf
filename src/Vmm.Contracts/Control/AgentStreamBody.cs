namespace Vmm.Contracts.Control;

/// <summary>How a stream to the guest's agent shall be.</summary>
/// <param name="Farewell">What the guest gets when the stream ends, whatever ended it; null is nothing. At most 256 bytes.</param>
public sealed record AgentStreamBody(byte[]? Farewell = null);
