using Vmm.Contracts.Rest;

namespace Vmm.Cli.Generate;

/// <summary>The names the daemon knows of a kind of object.</summary>
internal static class ObjectNames
{
    internal static async Task<IEnumerable<string>> OfAsync(VmmClient client, string noun, CancellationToken cancellation) => noun switch
    {
        "vm" or "ssh" => (await client.ListAsync(cancellation).ConfigureAwait(false)).Vms.Select(vm => vm.Name),
        "disk" => (await client.DisksAsync(cancellation).ConfigureAwait(false)).Disks.Select(disk => disk.Name),
        "image" => (await client.ImagesAsync(cancellation).ConfigureAwait(false)).Images.Select(image => image.Name),
        "network" => (await client.NetworksAsync(cancellation).ConfigureAwait(false)).Networks.Select(network => network.Name),
        "job" => (await client.JobsAsync(cancellation).ConfigureAwait(false)).Jobs.Select(job => job.Id),
        "token" => (await client.TokensAsync(cancellation).ConfigureAwait(false)).Tokens.Select(token => token.Name),
        _ => [],
    };
}
