using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Ssh;

/// <summary>The usual user of a distribution's image: the one that cloud-init makes there, and gives the keys.</summary>
internal static class SshUser
{
    private static readonly (string Distribution, string User)[] s_known =
    [
        ("debian", "debian"), ("ubuntu", "ubuntu"), ("fedora", "fedora"), ("centos", "cloud-user"), ("rhel", "cloud-user"),
        ("rocky", "rocky"), ("alma", "almalinux"), ("opensuse", "opensuse"), ("sles", "sles"), ("arch", "arch"), ("alpine", "alpine"),
        ("freebsd", "freebsd"), ("amazon", "ec2-user"), ("amzn", "ec2-user"),
    ];

    /// <summary>That of a VM, by the name of the image that it stands on, or by what its agent says.</summary>
    /// <exception cref="UsageException">Nothing tells.</exception>
    internal static async Task<string> OfAsync(VmmClient client, string vm, CancellationToken cancellation)
    {
        ImageList list = await client.ImagesAsync(cancellation).ConfigureAwait(false);
        List<ImageInfo> images = [.. list.Images.Where(image => image.UsedBy.Contains(vm, StringComparer.Ordinal))];
        return images.Select(image => Of(image.Name) ?? Of(image.Source)).FirstOrDefault(user => user is not null)
            ?? Of(await SystemAsync(client, vm, cancellation).ConfigureAwait(false))
            ?? throw new UsageException(images.Count > 0
                ? $"ssh: the name of {vm}'s image, {images[0].Name}, does not tell its usual user: say --user NAME"
                : $"ssh: {vm} stands on no image that would tell its usual user: say --user NAME");
    }

    /// <summary>The usual user, by a name with a distribution in it; null: it has none that is known.</summary>
    internal static string? Of(string name) =>
        s_known.FirstOrDefault(known => name.Contains(known.Distribution, StringComparison.OrdinalIgnoreCase)).User;

    private static async Task<string> SystemAsync(VmmClient client, string vm, CancellationToken cancellation)
    {
        try
        {
            return (await client.GuestAsync(vm, cancellation).ConfigureAwait(false)).System?.Name ?? "";
        }
        catch (VmmApiException)
        {
            return ""; // nobody answers in it
        }
    }
}
