using System.Globalization;
using Vmm.Interop;

namespace Vmm.HostNet.Shares;

/// <summary>
/// Finds virtiofsd processes by a mark in their environment, which an earlier vmmd gave them. A process that clears its mark is not found,
/// and one of another program is left alone.
/// </summary>
internal static class MarkedPrograms
{
    private const string Variable = "VMM_SHARE", Name = "virtiofsd";

    /// <summary>The environment of one with that mark; without a mark an empty one.</summary>
    internal static IReadOnlyDictionary<string, string> Environment(string? mark)
    {
        Dictionary<string, string> variables = new(StringComparer.Ordinal);
        if (mark is not null)
        {
            variables.Add(Variable, mark);
        }

        return variables;
    }

    /// <summary>Kills all with that mark.</summary>
    internal static void Kill(string mark)
    {
        string variable = $"{Variable}={mark}";
        foreach (string entry in Directory.EnumerateDirectories("/proc"))
        {
            try
            {
                if (!int.TryParse(Path.GetFileName(entry), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                    || Path.GetFileName(new FileInfo(entry + "/exe").LinkTarget) is not Name)
                {
                    continue;
                }

                using ProcessHandle process = ProcessHandle.Open(number); // before its mark is read: its number is its own from here on
                if (File.ReadAllText(entry + "/environ").Split('\0').Contains(variable, StringComparer.Ordinal))
                {
                    process.Kill();
                }
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or KernelException)
            {
                // It has ended meanwhile, or is another user's.
            }
        }
    }
}
