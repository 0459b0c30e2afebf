namespace Vmm.Storage.Seeds;

/// <summary>A file of a seed disk.</summary>
/// <param name="Name">Its name, as cloud-init looks for it.</param>
/// <param name="Content">Its bytes, whatever they are.</param>
public sealed record SeedFile(string Name, ReadOnlyMemory<byte> Content)
{
    /// <summary>Most bytes of one file.</summary>
    public const int MostBytes = 256 << 10;

    /// <summary>What the guest is to do at its first start.</summary>
    public const string UserData = "user-data";

    /// <summary>Who it is.</summary>
    public const string MetaData = "meta-data";

    /// <summary>Its network.</summary>
    public const string NetworkConfig = "network-config";

    /// <summary>What whoever runs it adds to the user's data.</summary>
    public const string VendorData = "vendor-data";
}
