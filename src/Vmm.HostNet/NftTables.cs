namespace Vmm.HostNet;

/// <summary>Tables of nftables, family inet, each of vmmd's own: nothing of the host's other rules changes.</summary>
/// <param name="folder">Where the text of the rules is written.</param>
internal sealed class NftTables(string folder)
{
    private const string Need = "private networks";

    /// <summary>Writes a table anew, in one step.</summary>
    /// <param name="what">What it is for, for errors.</param>
    /// <param name="table">The table.</param>
    /// <param name="chains">Its chains.</param>
    /// <exception cref="HostNetException">nft is not installed, or refused.</exception>
    internal void Load(string what, string table, string chains)
    {
        string file = Path.Combine(folder, table + ".nft");
        File.WriteAllText(file, Text(table, chains));
        try
        {
            Nft().Run(what, ["-f", file], []);
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <summary>A table as nft reads it, in place of one that may be there.</summary>
    internal static string Text(string table, string chains) =>
        $"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{chains}}}\n";

    /// <summary>Whether a table is there.</summary>
    /// <exception cref="HostNetException">nft is not installed.</exception>
    internal static bool IsThere(string table)
    {
        HostProgram nft = Nft();
        try
        {
            nft.Run(Need, ["list", "table", "inet", table], []);
            return true;
        }
        catch (HostNetException)
        {
            return false;
        }
    }

    /// <summary>Removes a table; nothing when it is not there.</summary>
    /// <exception cref="HostNetException">nft is not installed, or refused.</exception>
    internal static void Remove(string what, string table)
    {
        if (IsThere(table))
        {
            Nft().Run(what, ["delete", "table", "inet", table], []);
        }
    }

    private static HostProgram Nft() =>
        HostProgram.Find("nft", "nftables", Need, "/usr/sbin", "/sbin", "/usr/bin") with { Failure = "refuses" };
}
