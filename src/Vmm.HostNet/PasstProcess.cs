using System.Globalization;
using System.Net;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.HostNet;

/// <summary>
/// Starts passt(1), which turns the frames of one guest into sockets of the host. It ends when the other end of its socket is closed.
/// </summary>
/// <param name="net">The network device, which is user-mode.</param>
public sealed class PasstProcess(NetSpec net)
{
    private const string What = "user-mode networking";

    // What passt says at each start, or about its log and not about the network.
    private static readonly string[] s_noise = ["Failed to send ", "Don't run as root", "No external routable interface for IPv"];

    /// <summary>The program; null: it is looked for where Debian and its own makefile put it.</summary>
    internal string? Program { get; init; }

    /// <summary>Starts it and waits until it serves.</summary>
    /// <returns>Our end of its socket. passt ends when the last descriptor of it is closed.</returns>
    /// <exception cref="HostNetException">It is not installed, or does not start; says why.</exception>
    public FileDescriptorHandle Start()
    {
        HostProgram program = (Program is { } path
            ? new HostProgram("passt", path)
            : HostProgram.Find("passt", "passt", What, "/usr/bin", "/usr/local/bin")) with { Noise = s_noise };
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        try
        {
            using (theirs)
            {
                program.Run(What, Arguments(), [theirs]);
            }

            return new FileDescriptorHandle(own.Detach());
        }
        catch
        {
            own.Dispose();
            throw;
        }
    }

    /// <summary>What passt said last, in one line that is no trouble to show.</summary>
    internal static string Reason(ReadOnlySpan<byte> said) => new HostProgram("passt", "") { Noise = s_noise }.Reason(said);

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
}
