using System.Diagnostics;
using Vmm.Daemon.Workers;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>
/// A host or container with io_uring switched off: the programs run under a filter that makes io_uring_setup fail with EPERM, as
/// kernel.io_uring_disabled=2 does.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class NoIoUringTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-noring-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public async Task A_VM_with_a_disk_is_refused_at_its_start_and_the_setting_is_named()
    {
        string wrapper = Path.Combine(_folder, "worker");
        await File.WriteAllTextAsync(wrapper, $"#!/bin/sh\nexec '{Tree.Published("probe", "vmm-confinement-probe")}' without-rings "
            + $"'{Tree.Published("vmmd", "vmm-worker")}' \"$@\"\n");
        File.SetUnixFileMode(wrapper, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        await using WorkerFixture fixture = new(change: o => o with { Program = wrapper });
        VmSpec spec = WorkerFixture.SpecOf("hello") with { Disks = [new DiskSpec { Path = Disk() }] };
        WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => fixture.LaunchAsync(spec));
        Assert.Equal("host-mismatch", refused.Code);
        Assert.Contains("kernel.io_uring_disabled", refused.Message, StringComparison.Ordinal);

        // What needs no ring runs all the same.
        IWorker plain = await fixture.LaunchAsync(WorkerFixture.SpecOf("hello") with { Rng = false });
        await plain.StartAsync(WorkerFixture.Soon);
        Assert.NotNull(await plain.Ended.WaitAsync(WorkerFixture.Soon));
    }

    [KvmFact]
    public void So_does_vmmctl_run()
    {
        ProcessStartInfo start = new(Tree.Published("probe", "vmm-confinement-probe"),
            ["without-rings", Tree.Published("vmmctl", "vmmctl"), "run", "--memory", "64MiB", "--kernel",
                WorkerFixture.SpecOf("hello").Boot.Kernel!, "--disk", Disk()])
        { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process run = Process.Start(start)!;
        string said = run.StandardError.ReadToEnd();
        Assert.True(run.WaitForExit(60000));
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("kernel.io_uring_disabled", said, StringComparison.Ordinal);
    }

    private string Disk()
    {
        string path = Path.Combine(_folder, "disk.raw");
        File.WriteAllBytes(path, new byte[1 << 20]);
        return path;
    }
}
