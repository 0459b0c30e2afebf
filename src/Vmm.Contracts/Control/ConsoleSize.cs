namespace Vmm.Contracts.Control;

/// <summary>
/// How big the terminal behind a console is, in characters; 0 by 0 is unknown. Also the text message of a console's WebSocket.
/// </summary>
/// <param name="Columns">Characters in a line, 0 to 65535.</param>
/// <param name="Rows">Lines, 0 to 65535.</param>
public sealed record ConsoleSize(ushort Columns, ushort Rows);
