using System.Text;
using Vmm.Interop;

namespace Vmm.CommandLine.Seeds;

/// <summary>Asks for a password on the terminal, without showing it.</summary>
internal static class PasswordPrompt
{
    private const int MostBytes = 512;
    private const byte Interrupt = 3, Backspace = 8, Delete = 127;

    /// <summary>The password; null when there is no terminal, or nobody who answers.</summary>
    internal static string? Ask()
    {
        using Terminal terminal = new();
        if (!terminal.IsInteractive)
        {
            return null;
        }

        terminal.EnterRawMode();
        try
        {
            terminal.Write("Password of the guest's user: "u8);
            string? answer = ReadLine(terminal);
            terminal.Write("\r\n"u8);
            return answer;
        }
        finally
        {
            terminal.Restore();
        }
    }

    private static string? ReadLine(Terminal terminal)
    {
        List<byte> line = [];
        Span<byte> key = stackalloc byte[1];
        while (terminal.Read(key) > 0)
        {
            switch (key[0])
            {
                case (byte)'\r' or (byte)'\n':
                    return Encoding.UTF8.GetString([.. line]);
                case Interrupt:
                    return null;
                case Backspace or Delete:
                    if (line.Count > 0)
                    {
                        line.RemoveAt(line.Count - 1);
                    }

                    break;
                default:
                    if (line.Count < MostBytes)
                    {
                        line.Add(key[0]);
                    }

                    break;
            }
        }

        return null;
    }
}
