using System.Globalization;

namespace Vmm.Daemon.Access;

/// <summary>Groups of this host, group(5).</summary>
internal static class Groups
{
    /// <summary>The number of a group; null when there is none of this name.</summary>
    internal static uint? Find(string? name, string file = "/etc/group")
    {
        if (string.IsNullOrEmpty(name) || !File.Exists(file))
        {
            return null;
        }

        foreach (string line in File.ReadLines(file))
        {
            string[] fields = line.Split(':');
            if (fields.Length >= 3 && string.Equals(fields[0], name, StringComparison.Ordinal) && uint.TryParse(fields[2], NumberStyles.None, CultureInfo.InvariantCulture, out uint id))
            {
                return id;
            }
        }

        return null;
    }
}
