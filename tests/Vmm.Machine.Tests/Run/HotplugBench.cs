using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Tests.Run;

/// <summary>Disks that tests plug into a machine, and the terminal of its micro-guest.</summary>
public abstract class HotplugBench : IDisposable
{
    private protected HotplugBench() => Folder = Directory.CreateTempSubdirectory("vmm-hotplug-").FullName;

    private protected string Folder { get; }

    private protected Terminal Terminal { get; } = new();

    public void Dispose()
    {
        Terminal.Dispose();
        Directory.Delete(Folder, recursive: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Tells the guest to end, which has nothing to complain of.</summary>
    private protected void Finish(Thread run, Func<RunResult> result)
    {
        Terminal.Type("q");
        Assert.True(run.Join(60_000), Terminal.Said);
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, $"{result()}: {Terminal.Said}");
    }

    private protected static Task<RemovalOutcome> Remove(VirtualMachine machine, string name) =>
        machine.RemoveAsync(name, TimeSpan.FromSeconds(30), force: false, default);

    private protected PluggedDevice Add(VirtualMachine machine, string file, int mib)
    {
        DiskSpec disk = Disk(file, mib);
        return machine.AddDisk(disk, Open(disk));
    }

    private protected static IDiskBackend Open(DiskSpec disk) => new PathResources().OpenDisk(0, disk);

    private protected DiskSpec Disk(string file, int mib)
    {
        string path = Path.Combine(Folder, file);
        using (FileStream stream = File.Open(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite))
        {
            stream.SetLength((long)mib << 20);
        }

        return new DiskSpec { Path = path, Cache = DiskCache.Buffered };
    }
}
