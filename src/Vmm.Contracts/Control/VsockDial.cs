namespace Vmm.Contracts.Control;

/// <summary>A guest wants to reach a port of the host, and its worker may not connect to anything.</summary>
/// <param name="Dial">Number of the wish.</param>
/// <param name="Port">Port of the host.</param>
public sealed record VsockDial(long Dial, uint Port);

/// <summary>What became of it; with the descriptor <c>stream</c> when somebody listens there.</summary>
/// <param name="Dial">Number of the wish.</param>
/// <param name="Connected">A descriptor is passed.</param>
public sealed record VsockDialed(long Dial, bool Connected);
