using System.Text.Json;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Networks;

/// <summary>The folder of networks: a file each, which comes, changes and goes by a rename, so that it is whole or not there.</summary>
internal sealed class NetworkLibrary
{
    private const string Ending = ".json";
    private const UnixFileMode OwnerFolder = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly string _folder;

    /// <summary>Makes the folder.</summary>
    internal NetworkLibrary(string folder)
    {
        _folder = folder;
        Directory.CreateDirectory(folder, OwnerFolder);
    }

    /// <summary>All that can be read.</summary>
    /// <param name="unread">Hears of a file that cannot: its path, and why.</param>
    internal List<NetworkRecord> Read(Action<string, string> unread)
    {
        List<NetworkRecord> found = [];
        foreach (string path in Directory.EnumerateFiles(_folder, "*" + Ending).Order(StringComparer.Ordinal))
        {
            try
            {
                NetworkRecord? record = JsonSerializer.Deserialize(File.ReadAllText(path), NetworkJson.Default.NetworkRecord);
                if (record is { Id: not null, Number: >= 0, Reserved: not null } && NetSpec.IsNetworkName(record.Name)
                    && string.Equals(PathOf(record.Name), path, StringComparison.Ordinal)
                    && Ipv4Subnet.TryParse(record.Subnet ?? "", out _, out _)
                    && (record.Ipv6 is null || Ipv6Prefix.TryParse(record.Ipv6, out _, out _))
                    && record.Reserved.All(r => r is { Vm: not null, Mac: not null } && Ipv4Subnet.TryParseAddress(r.Address ?? "", out _)))
                {
                    found.Add(record);
                }
                else
                {
                    unread(path, "it is no network");
                }
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or JsonException)
            {
                unread(path, cause.Message);
            }
        }

        return found;
    }

    /// <summary>Something has this name, be it a network or not.</summary>
    internal bool Has(string name) => Path.Exists(PathOf(name));

    /// <summary>Writes a network. It is stable when this returns.</summary>
    /// <exception cref="IOException">It cannot be written: what was there is as it was.</exception>
    internal void Write(NetworkRecord record)
    {
        string path = PathOf(record.Name), part = path + ".part";
        File.WriteAllText(part, JsonSerializer.Serialize(record, NetworkJson.Default.NetworkRecord));
        using (Microsoft.Win32.SafeHandles.SafeFileHandle open = File.OpenHandle(part))
        {
            RandomAccess.FlushToDisk(open);
        }

        File.Move(part, path, overwrite: true);
        HostFolder.Flush(_folder);
    }

    /// <summary>Forgets a network.</summary>
    /// <exception cref="IOException">It cannot be removed.</exception>
    internal void Remove(string name)
    {
        File.Delete(PathOf(name));
        HostFolder.Flush(_folder);
    }

    private string PathOf(string name) => Path.Combine(_folder, name + Ending);
}
