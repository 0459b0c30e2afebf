using System.Globalization;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Guests.Qemu;

/// <summary>What the standard agent says of its guest, bounded and fit for terminals.</summary>
internal static class QemuFacts
{
    private const int LongestText = 256, MostEntries = 256;

    /// <summary>Asks for all of it; what the agent refuses is left out.</summary>
    /// <exception cref="QemuAgentException">It gave no answer.</exception>
    internal static async Task<GuestFacts> AskAsync(QemuAgent agent, CancellationToken cancellation)
    {
        QemuInfo info = await agent.AskAsync("guest-info", QemuJson.Default.QemuInfo, cancellation).ConfigureAwait(false);
        string? hostName = (await TryAsync(agent, "guest-get-host-name", QemuJson.Default.QemuHostName, cancellation)
            .ConfigureAwait(false))?.HostName;
        QemuSystem? system = await TryAsync(agent, "guest-get-osinfo", QemuJson.Default.QemuSystem, cancellation).ConfigureAwait(false);
        IReadOnlyList<QemuInterface?>? interfaces = await TryAsync(
            agent, "guest-network-get-interfaces", QemuJson.Default.Interfaces, cancellation).ConfigureAwait(false);
        IReadOnlyList<QemuFileSystem?>? mounts = await TryAsync(
            agent, "guest-get-fsinfo", QemuJson.Default.FileSystems, cancellation).ConfigureAwait(false);
        return new GuestFacts(
            Safe(info.Version),
            Safe(hostName),
            system is null ? null
                : new GuestSystem(
                    Safe(system.PrettyName ?? system.Name), Safe(system.VersionId), Safe(system.KernelRelease), Safe(system.Machine)),
            [.. (interfaces ?? []).Take(MostEntries).OfType<QemuInterface>().Select(Of)],
            [.. (mounts ?? []).Take(MostEntries).OfType<QemuFileSystem>().Select(Of)]);
    }

    /// <summary>What an agent tells of itself.</summary>
    internal static async Task<GuestAgentInfo> AgentAsync(QemuAgent agent, CancellationToken cancellation)
    {
        QemuInfo info = await agent.AskAsync("guest-info", QemuJson.Default.QemuInfo, cancellation).ConfigureAwait(false);
        bool freezes = info.SupportedCommands?.Any(each => each is { Name: "guest-fsfreeze-freeze", Enabled: true }) == true;
        return new GuestAgentInfo(
            Answers: true, Version: "qemu-ga " + (Safe(info.Version) ?? "?"), Freeze: freezes,
            Why: freezes ? null : "the guest's agent has no guest-fsfreeze-freeze, or it is switched off there");
    }

    private static GuestInterface Of(QemuInterface each) => new(
        Safe(each.Name) ?? "?",
        Safe(each.HardwareAddress),
        [.. (each.IpAddresses ?? []).Take(MostEntries).OfType<QemuAddress>().Select(address =>
            string.Create(CultureInfo.InvariantCulture, $"{Safe(address.IpAddress)}/{address.Prefix}"))]);

    private static GuestFileSystem Of(QemuFileSystem each) =>
        new(Safe(each.Mountpoint) ?? "?", Safe(each.Type), Safe(each.Name), each.TotalBytes, each.UsedBytes);

    // Not every agent knows or allows every command.
    private static async Task<T?> TryAsync<T>(QemuAgent agent, string command, JsonTypeInfo<T> shape, CancellationToken cancellation)
        where T : class
    {
        try
        {
            return await agent.AskAsync(command, shape, cancellation).ConfigureAwait(false);
        }
        catch (QemuAgentException refused) when (refused.Fault == QemuAgentFault.Refused)
        {
            return null;
        }
    }

    private static string? Safe(string? text) => text is null ? null : SafeText.Line(text, LongestText);
}
