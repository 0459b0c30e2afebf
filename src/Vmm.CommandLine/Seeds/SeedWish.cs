using Vmm.Spec.Seeds;

namespace Vmm.CommandLine.Seeds;

/// <summary>What the command line says of the seed of a guest's first start.</summary>
internal sealed record SeedWish
{
    private const int MostKeyBytes = 64 << 10;

    /// <summary>File of user-data, given to the guest byte for byte.</summary>
    internal string? UserData { get; init; }

    /// <summary>File of network-config.</summary>
    internal string? NetworkConfig { get; init; }

    /// <summary>Files of public keys.</summary>
    internal IReadOnlyList<string> SshKeys { get; init; } = [];

    /// <summary>The guest's name.</summary>
    internal string? Hostname { get; init; }

    /// <summary>Ask for a password.</summary>
    internal bool Password { get; init; }

    /// <summary>Something of it was given.</summary>
    internal bool IsGiven => Password || (UserData ?? NetworkConfig ?? Hostname) is not null || SshKeys.Count > 0;

    /// <summary>What the guest gets. What is wrong is noted instead; nothing of the files' content is in it.</summary>
    /// <param name="ask">Asks for a password; null when nobody answers.</param>
    /// <param name="problems">Takes what is wrong.</param>
    internal SeedContent? ToContent(Func<string?> ask, List<string> problems)
    {
        int before = problems.Count;
        List<string> keys = [];
        foreach (string file in SshKeys)
        {
            AddKeys(file, keys, problems);
        }

        if (Hostname is not null && !SeedContent.IsHostname(Hostname))
        {
            problems.Add($"--hostname: {SeedContent.HostnameRule}");
        }

        byte[]? userData = UserData is null ? null : Read("--user-data", UserData, SeedContent.MostBytes, problems);
        byte[]? network = NetworkConfig is null ? null : Read("--network-config", NetworkConfig, SeedContent.MostBytes, problems);
        string? hash = null;
        if (Password && problems.Count == before)
        {
            if (ask() is { Length: > 0 } password)
            {
                hash = PasswordHash.Of(password);
            }
            else
            {
                problems.Add("--password: none was given");
            }
        }

        SeedContent content = new(userData, network, keys, Hostname, hash);
        if (problems.Count == before)
        {
            problems.AddRange(
                content.Problems().Select(p => $"{(p.Path is "sshKeys" ? "--ssh-key" : "cloud-init: " + p.Path)}: {p.Message}"));
        }

        return problems.Count == before ? content : null;
    }

    private static void AddKeys(string file, List<string> keys, List<string> problems)
    {
        if (Read("--ssh-key", file, MostKeyBytes, problems) is not { } bytes)
        {
            return;
        }

        int before = keys.Count;
        foreach (string line in System.Text.Encoding.UTF8.GetString(bytes).Split('\n').Select(l => l.Trim()))
        {
            if (line.StartsWith("-----BEGIN", StringComparison.Ordinal))
            {
                problems.Add($"--ssh-key {file}: is a private key, which stays here: name the public one, {file}.pub");
                return;
            }

            if (line.Length > 0 && line[0] != '#')
            {
                keys.Add(line);
            }
        }

        bool sound = keys.Count > before && keys.Count <= SeedContent.MostKeys && keys.Skip(before).All(SeedContent.IsKey);
        if (!sound)
        {
            problems.Add(
                $"--ssh-key {file}: expected public keys, a line each (ssh-ed25519 AAAA…), at most {SeedContent.MostKeys} in all");
        }
    }

    private static byte[]? Read(string option, string file, int most, List<string> problems)
    {
        try
        {
            using FileStream stream = new(file, FileMode.Open, FileAccess.Read);
            byte[] bytes = new byte[most + 1];
            int length = stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            if (length <= most)
            {
                return bytes[..length];
            }

            problems.Add($"{option} {file}: has more than {most >> 10} KiB");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            problems.Add($"{option} {file}: {(cause is FileNotFoundException or DirectoryNotFoundException
                ? "does not exist" : Directory.Exists(file) ? "is a directory" : "cannot be read")}");
        }

        return null;
    }
}
