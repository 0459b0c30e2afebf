using System.Globalization;
using Vmm.Daemon.Pressure;

namespace Vmm.Daemon.Tests.Pressure;

/// <summary>A folder with the files in which a host says how its memory stands.</summary>
internal sealed class HostFiles : IDisposable
{
    private readonly SortedSet<int> _nodes = [];

    internal string Folder { get; } = Directory.CreateTempSubdirectory("vmm-host-").FullName;

    internal HostMemoryReader Reader => new(Path.Combine(Folder, "sys"), Path.Combine(Folder, "proc"));

    /// <summary>Sizes in KiB.</summary>
    internal static string Meminfo(string before, ulong total, ulong free, ulong inactiveFile = 0, ulong reclaimable = 0) =>
        string.Create(CultureInfo.InvariantCulture,
            $"{before}MemTotal:       {total} kB\n{before}MemFree:        {free} kB\n{before}MemUsed: 1 kB\n{before}Active(file):  7 kB\n"
            + $"{before}Inactive(file):  {inactiveFile} kB\n{before}SReclaimable: {reclaimable} kB\n");

    internal void Node(int number, ulong total, ulong free, ulong inactiveFile = 0, ulong reclaimable = 0)
    {
        string name = number.ToString(CultureInfo.InvariantCulture);
        _nodes.Add(number);
        Write($"sys/devices/system/node/node{name}/meminfo", Meminfo($"Node {name} ", total, free, inactiveFile, reclaimable));
        Write("sys/devices/system/node/online", string.Join(',', _nodes) + "\n");
    }

    internal void Whole(ulong total, ulong free, ulong inactiveFile = 0, ulong reclaimable = 0) =>
        Write("proc/meminfo", Meminfo("", total, free, inactiveFile, reclaimable));

    internal void Stall(string some, string full) => Write("proc/pressure/memory",
        $"some avg10={some} avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=0.00 avg300=0.00 total=1\n");

    /// <summary>Whoever reads meanwhile finds the old content or the new one.</summary>
    internal void Write(string path, string content)
    {
        string file = Path.Combine(Folder, path), made = Path.Combine(Folder, "new");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(made, content);
        File.Move(made, file, overwrite: true);
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
