using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.HostNet;

/// <summary>
/// Starts passt(1), which turns the frames of one guest into sockets of the host. It ends when the other end of its socket is closed.
/// </summary>
/// <param name="net">The network device, which is user-mode.</param>
public sealed class PasstProcess(NetSpec net)
{
    private const int MostSaid = 4096, MostReason = 400;

    private static readonly string[] s_places = ["/usr/bin/passt", "/usr/local/bin/passt"];
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private static readonly Dictionary<string, string> s_noEnvironment = new(StringComparer.Ordinal);

    // What passt says at each start, or about its log and not about the network.
    private static readonly string[] s_noise = ["Failed to send ", "Don't run as root", "No external routable interface for IPv"];

    /// <summary>The program; null: it is looked for where Debian and its own makefile put it.</summary>
    internal string? Program { get; init; }

    /// <summary>Starts it and waits until it serves.</summary>
    /// <returns>Our end of its socket. passt ends when the last descriptor of it is closed.</returns>
    /// <exception cref="HostNetException">It is not installed, or does not start; says why.</exception>
    public FileDescriptorHandle Start()
    {
        string program = (Program is null ? Array.Find(s_places, File.Exists) : Program) ?? throw new HostNetException(
            "user-mode networking needs the program passt, which is not installed: 'apt install passt'");
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        try
        {
            using (theirs)
            {
                Run(program, theirs);
            }

            return new FileDescriptorHandle(own.Detach());
        }
        catch
        {
            own.Dispose();
            throw;
        }
    }

    /// <summary>The words behind the program's name, for a socket that is descriptor 3.</summary>
    internal List<string> Arguments()
    {
        // Without --no-map-gw a guest that talks to its gateway would reach what listens on the host's loopback.
        List<string> words =
        [
            "--fd", "3", "--quiet", "--no-map-gw", "--mtu", (net.Mtu ?? UserNetSpec.MostMtu).ToString(CultureInfo.InvariantCulture),
        ];
        foreach (IPAddress server in HostResolvers.Find())
        {
            words.AddRange(["--dns", server.ToString()]);
        }

        foreach (string text in net.User!.Publish)
        {
            if (!PublishedPort.TryParse(text, out PublishedPort port, out string problem))
            {
                throw new HostNetException($"publish {text}: {problem}");
            }

            words.AddRange([port.IsUdp ? "--udp-ports" : "--tcp-ports",
                string.Create(CultureInfo.InvariantCulture, $"{port.Address}/{port.HostPort}:{port.GuestPort}")]);
        }

        return words;
    }

    private void Run(string program, FileDescriptorHandle socket)
    {
        (UnixStream said, FileDescriptorHandle errors) = UnixStream.CreatePair();
        using (said)
        {
            ProcessHandle process;
            using (errors)
            {
                try
                {
                    process = ProcessHandle.Spawn(program, [.. Arguments()], s_noEnvironment, [socket], isolated: false, errors);
                }
                catch (KernelException cause)
                {
                    throw new HostNetException($"user-mode networking: {cause.Message}", cause);
                }
            }

            using (process)
            {
                Wait(process, said);
            }
        }
    }

    // It goes to the background when it serves: the process that was started ends then, with 0.
    private static void Wait(ProcessHandle process, UnixStream said)
    {
        long begin = Stopwatch.GetTimestamp();
        byte[] text = new byte[MostSaid];
        int length = 0;
        ProcessEnd? end = null;
        while (end is null && Stopwatch.GetElapsedTime(begin) < s_patience)
        {
            end = process.Wait(20);
            length += Math.Max(0, length < text.Length ? said.Receive(text.AsSpan(length)) : said.Receive(new byte[MostSaid]));
        }

        if (end is null)
        {
            process.Kill();
            process.Wait(-1);
        }

        if (end is not { ExitCode: 0, Signal: 0 })
        {
            string reason = end is null ? $"it did not get ready within {s_patience.TotalSeconds:0} s" : Reason(text.AsSpan(0, length));
            throw new HostNetException($"user-mode networking: passt does not start: {reason}");
        }
    }

    /// <summary>What it said last, in one line that is no trouble to show.</summary>
    internal static string Reason(ReadOnlySpan<byte> said)
    {
        const StringSplitOptions bare = StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries;
        List<string> lines = [.. Encoding.UTF8.GetString(said).Split('\n', bare)
            .Where(line => !Array.Exists(s_noise, noise => line.StartsWith(noise, StringComparison.Ordinal)))];
        string last = lines.Count == 0 ? "it does not say why" : string.Join("; ", lines.TakeLast(2));
        last += last.Contains("External interface not usable", StringComparison.Ordinal) ? " (the host needs a default route)" : "";
        last = new string([.. last.Select(c => char.IsControl(c) ? ' ' : c)]);
        return last.Length > MostReason ? last[..MostReason] : last;
    }
}
