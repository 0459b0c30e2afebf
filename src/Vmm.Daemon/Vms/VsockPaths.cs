using System.Globalization;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Unix sockets of the VMs' vsock devices. A guest reaches the host's port N at its own socket's path with <c>_N</c> behind it: where that
/// is the socket of another VM, the guest would be a host program to that VM, and get at every port of its guest.
/// </summary>
internal static class VsockPaths
{
    private const int MostLinks = 40; // as the kernel counts, path_resolution(7)

    /// <summary>Looks whether the guest of one VM would reach the vsock of another as a host program.</summary>
    /// <exception cref="ApiException">It would.</exception>
    internal static void Require(VmSpec spec, IEnumerable<ManagedVm> all)
    {
        if (spec.Vsock is not { } vsock)
        {
            return;
        }

        foreach (ManagedVm other in all.Where(vm => !string.Equals(vm.Record.Name, spec.Name, StringComparison.Ordinal)))
        {
            if (other.VsockPath is { } taken && Conflict(spec.Name, vsock.Path, other.Record.Name, taken) is { } problem)
            {
                throw new ApiException(409, "vsock-conflict", "another VM has the vsock path", $"{problem}: give one of them another path");
            }
        }
    }

    /// <summary>Why two VMs cannot have these sockets; null when they can.</summary>
    /// <param name="name">One VM.</param>
    /// <param name="path">Its socket.</param>
    /// <param name="other">The other VM.</param>
    /// <param name="otherPath">Its socket.</param>
    internal static string? Conflict(string name, string path, string other, string otherPath)
    {
        string mine = Real(path), theirs = Real(otherPath);
        return string.Equals(mine, theirs, StringComparison.Ordinal) ? $"{name}: its vsock path {path} is that of {other}, too"
            : PortOf(theirs, mine) is { } reached
                ? $"{name}: its vsock path {path} is where the guest of {other} reaches port {reached} of the host ({otherPath}_{reached})"
            : PortOf(mine, theirs) is { } reaches
                ? $"{name}: its guest would reach port {reaches} of the host at {path}_{reaches}, which is the vsock path of {other}"
            : null;
    }

    /// <summary>
    /// The port at which the guest with the socket <paramref name="own"/> reaches <paramref name="socket"/>; null when it does not.
    /// </summary>
    internal static uint? PortOf(string own, string socket)
    {
        if (socket.Length <= own.Length + 1 || !socket.StartsWith(own, StringComparison.Ordinal) || socket[own.Length] != '_')
        {
            return null;
        }

        // As the port is written: 05 is not how anybody reaches port 5.
        string digits = socket[(own.Length + 1)..];
        return uint.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out uint port)
            && string.Equals(port.ToString(CultureInfo.InvariantCulture), digits, StringComparison.Ordinal)
            ? port
            : null;
    }

    /// <summary>The path without symbolic links among its folders; the socket itself is never reached by one.</summary>
    internal static string Real(string path)
    {
        string full = Path.GetFullPath(path, "/");
        int links = 0;
        return Path.Combine(Folder(Path.GetDirectoryName(full) ?? "/", ref links), Path.GetFileName(full));
    }

    private static string Folder(string folder, ref int links)
    {
        string at = "/";
        foreach (string part in folder.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            string next = Path.Combine(at, part);
            try
            {
                at = links < MostLinks && new DirectoryInfo(next).LinkTarget is { } target && ++links > 0
                    ? Folder(Path.GetFullPath(target, at), ref links)
                    : next;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                at = next; // not there: then nothing leads anywhere
            }
        }

        return at;
    }
}
