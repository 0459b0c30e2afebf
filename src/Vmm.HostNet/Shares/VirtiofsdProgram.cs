using System.Diagnostics;
using System.Text;
using Vmm.Interop;

namespace Vmm.HostNet.Shares;

/// <summary>
/// The program virtiofsd of this host. There are two: that of the virtio-fs project, which Debian 13 has as package virtiofsd (1.x), and
/// the
/// older one that is a part of QEMU 7, which Debian 12 has in qemu-system-common. They do the same and have options of their own.
/// </summary>
internal sealed class VirtiofsdProgram
{
    /// <summary>What to install where there is none.</summary>
    internal const string Missing = "a shared folder needs the program virtiofsd, which is not installed: 'apt install virtiofsd' "
        + "(Debian 12 has it in the package qemu-system-common)";

    /// <summary>Where the folder is mounted for it: a folder that every host has, hidden in mounts of its own.</summary>
    internal const string At = "/tmp";

    // What a guest would make of these is trouble for the host: nodes of devices, and programs with capabilities.
    private const string NoCapabilities = "-mknod:-setfcap";

    private static readonly string[] s_places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/local/libexec/virtiofsd"];
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    private VirtiofsdProgram(string path, bool isOfQemu) => (Path, IsOfQemu) = (path, isOfQemu);

    /// <summary>The file.</summary>
    internal string Path { get; }

    /// <summary>It is the one of QEMU 7.</summary>
    internal bool IsOfQemu { get; }

    /// <summary>Finds it.</summary>
    /// <param name="path">Where; null: where Debian and its own makefile put it.</param>
    /// <exception cref="HostShareException">There is none, or it does not say what it is.</exception>
    internal static VirtiofsdProgram Find(string? path)
    {
        path ??= Array.Find(s_places, File.Exists) ?? throw new HostShareException(Missing);
        return new VirtiofsdProgram(path, VersionOf(path).Contains("virtiofsd version", StringComparison.Ordinal));
    }

    /// <summary>The words behind its name, for a listening socket that is descriptor 3.</summary>
    /// <param name="readOnly">It refuses changes by itself, too.</param>
    /// <param name="isRoot">It has the rights of the host's root.</param>
    internal List<string> Arguments(bool readOnly, bool isRoot)
    {
        // One thread a ring, which serves it in order: whoever takes a ring of a process that died then knows what it had not answered.
        List<string> words = ["--fd=3", "--thread-pool-size=0"];
        words.AddRange(IsOfQemu
            ? ["-f", "-o", $"source={At},sandbox=namespace,log_level=warn,modcaps={NoCapabilities}"]
            : ["--shared-dir", At, "--sandbox", "namespace", "--log-level", "warn", $"--modcaps={NoCapabilities}"]);
        if (readOnly && !IsOfQemu)
        {
            words.Add("--readonly");
        }

        if (!isRoot)
        {
            words.Add("--rlimit-nofile=0"); // it may not raise its limit
        }

        return words;
    }

    private static string VersionOf(string path)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        using (own)
        {
            try
            {
                ProcessHandle process;
                using (theirs)
                {
                    // Standard output is nowhere here: a shell turns it.
                    process = ProcessHandle.Spawn("/bin/sh", ["-c", "exec \"$0\" --version >&2", path],
                        new Dictionary<string, string>(StringComparer.Ordinal), [], errors: theirs);
                }

                using (process)
                {
                    return Read(own, process);
                }
            }
            catch (KernelException cause)
            {
                throw new HostShareException($"{path}: {cause.Message}", cause);
            }
        }
    }

    private static string Read(UnixStream own, ProcessHandle process)
    {
        byte[] said = new byte[1024];
        int length = 0;
        for (long begin = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(begin) < s_patience;)
        {
            int received = length < said.Length ? own.Receive(said.AsSpan(length)) : 0;
            if (received == 0)
            {
                break;
            }

            length += Math.Max(0, received);
            Span<PollEntry> one = [new PollEntry(own, read: true)];
            _ = Poll.Wait(one, 100);
        }

        if (process.Wait(1000) is null)
        {
            process.Kill();
            process.Wait(-1);
        }

        return Encoding.UTF8.GetString(said, 0, length);
    }
}
