using System.Globalization;
using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// Who has a lock on a file. The list of all locks (/proc/locks) does not say whose open file a lock is of: it is looked for in what
/// processes have open (proc(5), fdinfo). It takes milliseconds, and is for the text of an error.
/// </summary>
internal static class LockHolders
{
    private const int Most = 4;

    /// <summary>The holders as a text: VMs, processes and this host.</summary>
    /// <param name="file">The file.</param>
    /// <param name="vmOf">The name of the VM that a process runs; null: it runs none that the caller knows.</param>
    /// <param name="others">This process has a lock itself, and is not meant.</param>
    internal static string Describe(FileDescriptorHandle file, Func<int, string?>? vmOf, bool others = false) =>
        DescribeOthers(file, vmOf, others ? Environment.ProcessId : 0, others)
            ?? "somebody who cannot be seen here: a process of another user or container, or another host that has this file by the "
                + "network";

    /// <summary>The holders but this process and another one, as a text; null when there are none that can be seen.</summary>
    internal static string? DescribeOthers(FileDescriptorHandle file, Func<int, string?>? vmOf, int process, bool others = true)
    {
        string[] holders = [.. Find(BlockFile.Identify(file))
            .Where(each => each != process && (!others || each != Environment.ProcessId)).Take(Most).Select(each => Name(each, vmOf))];
        return holders.Length > 0 ? $"{string.Join(", ", holders)} on {Environment.MachineName}" : null;
    }

    private static string Name(int process, Func<int, string?>? vmOf) => vmOf?.Invoke(process) is { } vm
        ? $"VM {vm} (process {process})"
        : $"{Command(process)} (process {process})";

    private static IEnumerable<int> Find(FileIdentity file)
    {
        foreach (string folder in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out int process)
                && Descriptors(folder).Any(fd => BlockFile.Identify($"{folder}/fd/{fd}") == file && HasLock($"{folder}/fdinfo/{fd}")))
            {
                yield return process;
            }
        }
    }

    private static string[] Descriptors(string folder)
    {
        try
        {
            return [.. Directory.EnumerateFileSystemEntries(folder + "/fd").Select(path => Path.GetFileName(path))];
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return []; // it ended, or is none of ours to look at
        }
    }

    private static bool HasLock(string info)
    {
        try
        {
            return File.ReadLines(info).Any(line => line.StartsWith("lock:", StringComparison.Ordinal));
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    // A process chooses its name: what a terminal would obey is left out.
    private static string Command(int process)
    {
        try
        {
            return new([.. File.ReadAllText($"/proc/{process}/comm").Where(c => !char.IsControl(c))]);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return "a process";
        }
    }
}
