using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.Contracts;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Ssh;

/// <summary>
/// The ssh of this machine. Host keys are kept for each VM by its id, in a file of the user's state folder: another VM of the same name or
/// address is no changed key, and the user's own known hosts stay as they are.
/// </summary>
internal static class SshProgram
{
    private const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    /// <summary>Where it is.</summary>
    /// <exception cref="VmmApiException">It is not installed.</exception>
    internal static string Find() =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Select(folder => Path.Combine(folder, "ssh")).FirstOrDefault(IsProgram)
            ?? throw new VmmApiException("no-ssh", "ssh is not installed here: apt install openssh-client");

    /// <summary>What it is started with.</summary>
    internal static IReadOnlyList<string> Arguments(
        string vmId, SshTarget target, string user, string? identity, IReadOnlyList<string> words)
    {
        if (!Guid.TryParseExact(vmId, "D", out _))
        {
            throw new VmmApiException("bad-answer", $"the id of the VM is none: {SafeText.Line(vmId)}"); // it becomes the name of a file
        }

        string? wanted = Environment.GetEnvironmentVariable("XDG_STATE_HOME");
        string state = wanted is ['/', ..] ? wanted
            : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".local", "state");
        string folder = Path.Combine(state, "vmm", "ssh");
        Directory.CreateDirectory(folder, Owner);
        // ssh_config(5): a value with blanks stands in quotes, and % begins a token
        string known = Path.Combine(folder, vmId).Replace("%", "%%", StringComparison.Ordinal);
        return
        [
            "-o", $"UserKnownHostsFile=\"{known}\"", "-o", "StrictHostKeyChecking=accept-new", "-o", $"HostKeyAlias=vmm-{vmId}",
            "-o", "CheckHostIP=no", "-p", target.Port.ToString(CultureInfo.InvariantCulture), "-l", user,
            .. identity is null ? [] : new[] { "-i", identity }, "--", target.Host, .. words,
        ];
    }

    /// <summary>Runs it on this terminal, to its end.</summary>
    /// <returns>Its exit code.</returns>
    internal static async Task<int> RunAsync(string program, IReadOnlyList<string> arguments)
    {
        // What the terminal sends goes to both; it is for the guest.
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, signal => signal.Cancel = true);
        using PosixSignalRegistration quit = PosixSignalRegistration.Create(PosixSignal.SIGQUIT, signal => signal.Cancel = true);
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { UseShellExecute = false })
            ?? throw new IOException($"{program} does not start");
        await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        return process.ExitCode;
    }

    private static bool IsProgram(string path) => File.Exists(path)
        && (File.GetUnixFileMode(path) & (UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute)) != 0;
}
