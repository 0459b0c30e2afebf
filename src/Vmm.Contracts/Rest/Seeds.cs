using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>
/// What a guest with cloud-init gets at its first start. Nobody is told any of it afterwards: it may hold what is secret.
/// </summary>
/// <param name="UserData">User-data, as it is.</param>
/// <param name="NetworkConfig">Its network.</param>
/// <param name="SshKeys">Public keys of its usual user.</param>
/// <param name="Hostname">Its name; that of the VM by default.</param>
/// <param name="PasswordHash">Hash of that user's password, as crypt(5) has it.</param>
/// <param name="Once">The seed is deleted when its first run is over.</param>
public sealed record VmSeedWish(
    byte[]? UserData = null, byte[]? NetworkConfig = null, IReadOnlyList<string>? SshKeys = null, string? Hostname = null,
    string? PasswordHash = null, bool? Once = null)
{
    /// <summary>Nothing of it.</summary>
    public override string ToString() => "seed";
}

/// <summary>Whether a VM has a seed.</summary>
public enum VmSeedState
{
    /// <summary>It has none.</summary>
    None,

    /// <summary>Its next start has it.</summary>
    Ready,

    /// <summary>One that is kept for one run, which has begun.</summary>
    Used,

    /// <summary>It was deleted when its run was over.</summary>
    Deleted,
}

/// <summary>What there is of a seed, without its content.</summary>
/// <param name="State">Whether there is one.</param>
/// <param name="Once">It is for one run.</param>
/// <param name="SizeBytes">Of its disk.</param>
public sealed record VmSeedInfo(VmSeedState State, bool Once, long SizeBytes);

/// <summary>Seeds of VMs.</summary>
public static class SeedRequests
{
    /// <summary>Whether a VM has a seed.</summary>
    public static Task<VmSeedInfo> SeedAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Seed(name), null, RestJson.Default.VmSeedInfo, cancellation);

    /// <summary>Gives a VM that does not run a seed in place of any it has; the same again changes nothing.</summary>
    public static Task<VmSeedInfo> PutSeedAsync(this VmmClient client, string name, VmSeedWish wish, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Put, Seed(name), JsonSerializer.Serialize(wish, RestJson.Default.VmSeedWish),
            RestJson.Default.VmSeedInfo, cancellation);

    /// <summary>Deletes the seed of a VM that does not run.</summary>
    public static Task DeleteSeedAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, Seed(name), null, cancellation);

    private static string Seed(string name) => VmmClient.Vm(name) + "/seed";
}
