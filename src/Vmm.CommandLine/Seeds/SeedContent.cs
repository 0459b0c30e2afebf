using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Vmm.CommandLine.Seeds;

/// <summary>
/// The files of cloud-init's data source NoCloud. User-data is passed on as it is; what options add goes into the other files: keys and the
/// host name into meta-data, the password into vendor-data.
/// </summary>
/// <param name="UserData">User-data; null is none.</param>
/// <param name="NetworkConfig">The network; null leaves it to the guest.</param>
/// <param name="Keys">Public keys of the guest's usual user.</param>
/// <param name="Hostname">The guest's name; null is the VM's.</param>
/// <param name="PasswordHash">Hash of that user's password; null is none.</param>
internal sealed record SeedContent(
    byte[]? UserData, byte[]? NetworkConfig, IReadOnlyList<string> Keys, string? Hostname, string? PasswordHash)
{
    /// <summary>The user-data of a guest that got none: cloud-init looks for the file.</summary>
    private static byte[] NoUserData => "#cloud-config\n{}\n"u8.ToArray();

    /// <summary>Names and bytes.</summary>
    /// <param name="vm">Name of the VM.</param>
    internal IReadOnlyList<(string Name, byte[] Bytes)> Files(string vm)
    {
        List<(string, byte[])> files = [("user-data", UserData ?? NoUserData)];
        if (NetworkConfig is not null)
        {
            files.Add(("network-config", NetworkConfig));
        }

        if (PasswordHash is not null)
        {
            files.Add(("vendor-data", Encoding.UTF8.GetBytes(
                $"#cloud-config\npassword: {Quoted(PasswordHash)}\nchpasswd: {{expire: false}}\n")));
        }

        files.Add(("meta-data", MetaData(vm, files)));
        return files;
    }

    // The same content is the same instance, which a guest sets up once; a password that was asked for again is a change.
    private byte[] MetaData(string vm, IEnumerable<(string Name, byte[] Bytes)> files)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        StringBuilder text = new($"local-hostname: {Quoted(Hostname ?? vm)}\n");
        text.Append(Keys.Count > 0 ? "public-keys:\n" : "");
        foreach (string key in Keys)
        {
            text.Append("  - ").Append(Quoted(key)).Append('\n');
        }

        hash.AppendData(Encoding.UTF8.GetBytes(vm + "\0" + text));
        foreach ((string name, byte[] bytes) in files)
        {
            hash.AppendData(Encoding.UTF8.GetBytes(name));
            hash.AppendData(SHA256.HashData(bytes));
        }

        return Encoding.UTF8.GetBytes($"instance-id: iid-{Convert.ToHexStringLower(hash.GetHashAndReset())[..16]}\n{text}");
    }

    // YAML takes JSON's strings.
    private static string Quoted(string text) => $"\"{JsonEncodedText.Encode(text).Value}\"";
}
