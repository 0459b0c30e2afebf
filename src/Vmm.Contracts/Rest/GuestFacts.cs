namespace Vmm.Contracts.Rest;

/// <summary>
/// What the standard agent of a guest says of it now; a part that it does not know is null or empty. All of it is the guest's own saying:
/// texts are one line each, fit for terminals, and shortened.
/// </summary>
/// <param name="Agent">The agent's release.</param>
/// <param name="HostName">Its host name.</param>
/// <param name="System">Its operating system.</param>
/// <param name="Interfaces">Its network interfaces.</param>
/// <param name="FileSystems">Its mounted file systems.</param>
public sealed record GuestFacts(
    string? Agent,
    string? HostName,
    GuestSystem? System,
    IReadOnlyList<GuestInterface> Interfaces,
    IReadOnlyList<GuestFileSystem> FileSystems);

/// <summary>An operating system.</summary>
/// <param name="Name">For people, e.g. <c>Debian GNU/Linux 13 (trixie)</c>.</param>
/// <param name="Version">Its version, e.g. <c>13</c>.</param>
/// <param name="Kernel">Release of its kernel.</param>
/// <param name="Machine">E.g. <c>x86_64</c>.</param>
public sealed record GuestSystem(string? Name, string? Version, string? Kernel, string? Machine);

/// <summary>A network interface of a guest.</summary>
/// <param name="Name">E.g. <c>eth0</c>.</param>
/// <param name="Mac">Its hardware address.</param>
/// <param name="Addresses">Its addresses with their prefixes, e.g. <c>192.0.2.7/24</c>.</param>
public sealed record GuestInterface(string Name, string? Mac, IReadOnlyList<string> Addresses);

/// <summary>A mounted file system of a guest.</summary>
/// <param name="MountPoint">Where.</param>
/// <param name="Type">E.g. <c>ext4</c>.</param>
/// <param name="Device">The device it is on.</param>
/// <param name="Size">Bytes; null when the agent does not say.</param>
/// <param name="Used">Bytes in use.</param>
public sealed record GuestFileSystem(string MountPoint, string? Type, string? Device, ulong? Size, ulong? Used);

/// <summary>A command for a guest, carried out by its standard agent as who that runs as, mostly root.</summary>
/// <param name="Command">The program, looked for as a shell does, and its arguments; no shell is involved. 1 to 256 texts, 64 KiB in
/// all.</param>
/// <param name="Input">What it reads, at most 48 KiB; null is nothing.</param>
/// <param name="Seconds">How long to wait for its end, 1 to 600; null is 60. It is not ended then.</param>
public sealed record GuestExecWish(IReadOnlyList<string> Command, byte[]? Input = null, int? Seconds = null);

/// <summary>What became of a command in a guest.</summary>
/// <param name="ExitCode">Its exit code; null when a signal ended it.</param>
/// <param name="Signal">The signal that ended it.</param>
/// <param name="Output">What it wrote to standard output. Bytes of the guest, whatever they are.</param>
/// <param name="Errors">What it wrote to standard error.</param>
/// <param name="Truncated">The agent kept only the begin of what it wrote.</param>
public sealed record GuestExecResult(int? ExitCode, int? Signal, byte[] Output, byte[] Errors, bool Truncated);
