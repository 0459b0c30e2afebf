namespace Vmm.Machine.Run;

/// <summary>
/// The <c>reboot=</c> words of a Linux command line (Documentation/admin-guide/kernel-parameters.txt): a guest that is told to reboot by a
/// triple fault does not crash when it does so.
/// </summary>
internal static class RebootArgument
{
    private const string Types = "abketpq";

    /// <summary>True when the way of rebooting that counts, the last one, is a triple fault.</summary>
    internal static bool AsksForTripleFault(string commandLine)
    {
        char way = '\0';
        foreach (string word in commandLine.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (!word.StartsWith("reboot=", StringComparison.Ordinal))
            {
                continue;
            }

            // A list by commas, of each entry the first letter counts: kind of start, processor, way, force.
            foreach (string entry in word["reboot=".Length..].Split(','))
            {
                if (entry.Length > 0 && Types.Contains(entry[0], StringComparison.Ordinal))
                {
                    way = entry[0];
                }
            }
        }

        return way == 't';
    }
}
