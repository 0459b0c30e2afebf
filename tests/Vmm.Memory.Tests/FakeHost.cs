using System.Globalization;

namespace Vmm.Memory.Tests;

/// <summary>A sysfs and procfs of our own making, in a temporary folder.</summary>
internal sealed class FakeHost : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("vmm-host-").FullName;

    internal string Sysfs => Path.Combine(_root, "sys");

    internal string Procfs => Path.Combine(_root, "proc");

    internal static FakeHost WithNodes(params (int Id, string Cpus, ulong TotalKib, ulong FreeKib, string Distances)[] nodes)
    {
        FakeHost host = new();
        host.Write("sys/devices/system/node/online", NumberSet.Format([.. nodes.Select(n => n.Id)]) + "\n");
        foreach ((int id, string cpus, ulong total, ulong free, string distances) in nodes)
        {
            host.Write($"sys/devices/system/node/node{id}/cpulist", cpus + "\n");
            host.Write($"sys/devices/system/node/node{id}/distance", distances + "\n");
            host.Write($"sys/devices/system/node/node{id}/meminfo", string.Create(CultureInfo.InvariantCulture,
                $"Node {id} MemTotal:       {total} kB\nNode {id} MemFree:        {free} kB\nNode {id} MemUsed: 5 kB\n"));
        }

        return host;
    }

    internal static FakeHost WithoutNuma(string cpus, ulong totalKib, ulong freeKib)
    {
        FakeHost host = new();
        host.Write("sys/devices/system/cpu/online", cpus + "\n");
        host.Write("proc/meminfo", string.Create(
            CultureInfo.InvariantCulture, $"MemTotal:       {totalKib} kB\nMemFree:        {freeKib} kB\nMemAvailable:   1 kB\n"));
        return host;
    }

    internal void Write(string path, string text)
    {
        string full = Path.Combine(_root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(full)!);
        File.WriteAllText(full, text);
    }

    internal void Remove(string path) => File.Delete(Path.Combine(_root, path));

    internal HostTopology Read() => HostTopology.Read(Sysfs, Procfs);

    public void Dispose() => Directory.Delete(_root, recursive: true);
}
