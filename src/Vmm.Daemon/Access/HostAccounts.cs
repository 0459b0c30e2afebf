using Mono.Unix.Native;

namespace Vmm.Daemon.Access;

/// <summary>
/// Users and groups of this host, as the host's name service knows them (nsswitch.conf(5)): also those of a directory, which no file lists.
/// </summary>
internal static class HostAccounts
{
    /// <summary>The effective user of this process.</summary>
    internal static uint OwnUser { get; } = Syscall.geteuid();

    /// <summary>The number of a group; null when there is none of this name.</summary>
    internal static uint? FindGroup(string? name) => string.IsNullOrEmpty(name) ? null : Syscall.getgrnam(name)?.gr_gid;
}
