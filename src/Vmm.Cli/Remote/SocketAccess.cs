using Mono.Unix;
using Mono.Unix.Native;

namespace Vmm.Cli.Remote;

/// <summary>Says what to do about a socket of vmmd that may not be opened.</summary>
internal static class SocketAccess
{
    /// <summary>The group that may, whether the user is in it, and the command that puts them there.</summary>
    internal static string Explain(string socket, string user)
    {
        try
        {
            return Explain(socket, user, GroupOf(socket));
        }
        catch (DllNotFoundException)
        {
            return Explain(socket, user, null); // vmmctl was copied without libMonoPosixHelper.so
        }
    }

    private static string Explain(string socket, string user, UnixGroupInfo? group) =>
        group is null ? $"{socket}: permission denied: your user is not in the group of the socket (vmm, as packaged): 'sudo adduser "
            + $"{user} vmm' and log in again, or run vmmctl as root"
        : group.GroupId == 0 ? $"{socket}: permission denied: the socket is root's alone: run vmmctl as root"
        : group.GetMemberNames().Contains(user, StringComparer.Ordinal)
            ? $"{socket}: permission denied: you were put into the group {group.GroupName} after you logged in: log in again"
        : $"{socket}: permission denied: your user is not in the group {group.GroupName}: 'sudo adduser {user} {group.GroupName}' and log "
            + "in again, or run vmmctl as root";

    /// <summary>
    /// The group of the socket, or of its folder when that is closed; null when neither can be seen or the group has no name.
    /// </summary>
    private static UnixGroupInfo? GroupOf(string socket)
    {
        if (Syscall.stat(socket, out Stat found) != 0 && Syscall.stat(Path.GetDirectoryName(socket) ?? "/", out found) != 0)
        {
            return null;
        }

        return Syscall.getgrgid(found.st_gid) is { } known ? new UnixGroupInfo(known) : null;
    }
}
