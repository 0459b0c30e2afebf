using System.Diagnostics;
using System.Text;
using Vmm.Interop;

namespace Vmm.HostNet;

/// <summary>
/// A program of the host that does its work and ends, or goes to the background when it serves: then its first process ends.
/// </summary>
/// <param name="Name">What errors call it.</param>
/// <param name="Path">Where it is.</param>
internal sealed record HostProgram(string Name, string Path)
{
    private const int MostSaid = 4096, MostReason = 400;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    /// <summary>What it says that is no reason for anything.</summary>
    internal IReadOnlyList<string> Noise { get; init; } = [];

    /// <summary>What it does when it fails.</summary>
    internal string Failure { get; init; } = "does not start";

    /// <summary>Its whole environment.</summary>
    internal IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>Looks for a program where Debian and its own makefile put it.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="package">The Debian package that has it.</param>
    /// <param name="what">What needs it.</param>
    /// <param name="folders">Where to look.</param>
    /// <exception cref="HostNetException">It is not installed.</exception>
    internal static HostProgram Find(string name, string package, string what, params ReadOnlySpan<string> folders)
    {
        foreach (string folder in folders)
        {
            if (File.Exists($"{folder}/{name}"))
            {
                return new HostProgram(name, $"{folder}/{name}");
            }
        }

        throw new HostNetException($"{what} needs the program {name}, which is not installed: 'apt install {package}'");
    }

    /// <summary>Starts it and waits until its first process has ended well.</summary>
    /// <param name="what">What it is for, for errors.</param>
    /// <param name="arguments">The words behind its name.</param>
    /// <param name="descriptors">What it gets as 3, 4, …</param>
    /// <param name="isolated">It has mount and network namespaces of its own.</param>
    /// <param name="started">Done when it runs, with its process; what this throws ends it.</param>
    /// <exception cref="HostNetException">It does not start, or failed; says why.</exception>
    internal void Run(string what, IReadOnlyList<string> arguments, ReadOnlySpan<FileDescriptorHandle> descriptors, bool isolated = false,
        Action<int>? started = null)
    {
        (UnixStream said, FileDescriptorHandle errors) = UnixStream.CreatePair();
        using (said)
        {
            ProcessHandle process;
            using (errors)
            {
                try
                {
                    process = ProcessHandle.Spawn(Path, [.. arguments], Environment, descriptors, isolated, errors);
                }
                catch (KernelException cause)
                {
                    throw new HostNetException($"{what}: {cause.Message}", cause);
                }
            }

            using (process)
            {
                try
                {
                    started?.Invoke(process.ProcessId);
                }
                catch
                {
                    End(process);
                    throw;
                }

                Wait(what, process, said);
            }
        }
    }

    /// <summary>What a program said last, in one line that is no trouble to show.</summary>
    internal string Reason(ReadOnlySpan<byte> said)
    {
        const StringSplitOptions bare = StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries;
        List<string> lines = [.. Encoding.UTF8.GetString(said).Split('\n', bare)
            .Where(line => !Noise.Any(noise => line.StartsWith(noise, StringComparison.Ordinal)))];
        string last = lines.Count == 0 ? "it does not say why" : string.Join("; ", lines.TakeLast(2));
        last += last.Contains("External interface not usable", StringComparison.Ordinal) ? " (the host needs a default route)" : "";
        last = new string([.. last.Select(c => char.IsControl(c) ? ' ' : c)]);
        return last.Length > MostReason ? last[..MostReason] : last;
    }

    private void Wait(string what, ProcessHandle process, UnixStream said)
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
            End(process);
        }

        if (end is not { ExitCode: 0, Signal: 0 })
        {
            string reason = end is null ? $"it did not get ready within {s_patience.TotalSeconds:0} s" : Reason(text.AsSpan(0, length));
            throw new HostNetException($"{what}: {Name} {Failure}: {reason}");
        }
    }

    private static void End(ProcessHandle process)
    {
        process.Kill();
        process.Wait(-1);
    }
}
