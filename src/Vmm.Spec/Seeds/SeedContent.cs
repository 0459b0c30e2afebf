using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Vmm.Spec.Seeds;

/// <summary>
/// The files of cloud-init's data source NoCloud. User-data is passed on as it is; what options add goes into the other files: keys and the
/// host name into meta-data, the password into vendor-data.
/// </summary>
/// <param name="UserData">User-data; null is none.</param>
/// <param name="NetworkConfig">The network; null leaves it to the guest.</param>
/// <param name="Keys">Public keys of the guest's usual user.</param>
/// <param name="Hostname">The guest's name; null is the VM's.</param>
/// <param name="PasswordHash">Hash of that user's password; null is none.</param>
public sealed record SeedContent(
    byte[]? UserData, byte[]? NetworkConfig, IReadOnlyList<string> Keys, string? Hostname, string? PasswordHash)
{
    /// <summary>Most bytes of user-data, and of a network's configuration.</summary>
    public const int MostBytes = 256 << 10;

    /// <summary>Most public keys.</summary>
    public const int MostKeys = 100;

    private const int MostHostname = 253, MostHash = 256, MostKeyText = 32 << 10; // of all: escaped it fits a file

    /// <summary>Nothing of it was given.</summary>
    public bool IsEmpty => UserData is null && NetworkConfig is null && Keys.Count == 0 && Hostname is null && PasswordHash is null;

    /// <summary>What a host name is, for an error.</summary>
    public static string HostnameRule => $"expected 1 to {MostHostname} letters, digits, '-' or '.', a letter or digit first";

    // The user-data of a guest that got none: cloud-init looks for the file.
    private static byte[] NoUserData => "#cloud-config\n{}\n"u8.ToArray();

    /// <summary>What is wrong with it, by member; nothing of the content is in it.</summary>
    public IReadOnlyList<SpecProblem> Problems()
    {
        List<SpecProblem> problems = [];
        void Require(bool sound, string member, string problem)
        {
            if (!sound)
            {
                problems.Add(new SpecProblem(member, problem));
            }
        }

        Require(UserData is not { Length: > MostBytes }, "userData", $"has more than {MostBytes >> 10} KiB");
        Require(NetworkConfig is not { Length: > MostBytes }, "networkConfig", $"has more than {MostBytes >> 10} KiB");
        Require(Keys.Count <= MostKeys && Keys.Sum(key => (long)key.Length) <= MostKeyText, "sshKeys",
            $"are more than {MostKeys}, or have more than {MostKeyText >> 10} KiB");
        for (int i = 0; i < Math.Min(Keys.Count, MostKeys); i++)
        {
            Require(IsKey(Keys[i]), $"sshKeys[{i}]", "expected a public key on one line: ssh-ed25519 AAAA…");
        }

        Require(Hostname is null || IsHostname(Hostname), "hostname", HostnameRule);
        Require(PasswordHash is null || IsHash(PasswordHash), "passwordHash",
            "expected a hash as crypt(5) has it ($6$SALT$HASH), as mkpasswd makes it: a password itself is not kept");
        return problems;
    }

    /// <summary>Whether a text is a name that a guest can have.</summary>
    public static bool IsHostname(string text) => text.Length is > 0 and <= MostHostname && text[0] is not ('-' or '.')
        && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.');

    /// <summary>Whether a line is a public key (sshd(8), "AUTHORIZED_KEYS FILE FORMAT", without options before the key).</summary>
    public static bool IsKey(string line) => !line.Any(char.IsControl) && line.Split(' ') is { Length: >= 2 } parts
        && (parts[0].StartsWith("ssh-", StringComparison.Ordinal) || parts[0].StartsWith("ecdsa-", StringComparison.Ordinal)
            || parts[0].StartsWith("sk-", StringComparison.Ordinal))
        && parts[1].Length > 16 && parts[1].All(c => char.IsAsciiLetterOrDigit(c) || c is '+' or '/' or '=');

    private static bool IsHash(string text) => text.Length is > 12 and <= MostHash && text[0] == '$' && text.Count(c => c == '$') >= 3
        && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '$' or '.' or '/' or '=' or ',' or '-' or '_' or '+');

    /// <summary>Names and bytes.</summary>
    /// <param name="vm">Name of the VM.</param>
    public IReadOnlyList<(string Name, byte[] Bytes)> Files(string vm)
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

    /// <summary>Nothing of it.</summary>
    public override string ToString() => "seed";

    // YAML takes JSON's strings.
    private static string Quoted(string text) => $"\"{JsonEncodedText.Encode(text).Value}\"";
}
