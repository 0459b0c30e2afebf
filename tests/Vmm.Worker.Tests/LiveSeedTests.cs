using System.Text;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Testing;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary>The seed of a first start, all the way: by REST, through vmmd, in a confined worker, to a guest that reads it.</summary>
[Trait("Tier", "kvm")]
public sealed class LiveSeedTests
{
    private const string Reads = "mode=text first=88 count=2"; // the first sector of a file on a volume of 2048 bytes a sector

    [KvmFact]
    public async Task A_guest_reads_its_seed_through_saves_and_its_next_run_has_none()
    {
        await using LiveDaemon daemon = await StartAsync();
        string kernel = Path.Combine(Tree.Root, "tests", "guests", "build", "blk.elf");
        await daemon.Client.CreateAsync(
            $"name: vm0\nmemory: 64MiB\nonReboot: stop\nboot: {{kernel: {kernel}, cmdline: \"{Reads}\"}}\n", daemon.Folder, Soon);
        VmSeedWish wish = new(UserData: Encoding.UTF8.GetBytes("#cloud-config\nhidden: 4711\n"), Hostname: "web1", Once: true);
        await daemon.Client.PutSeedAsync("vm0", wish, Soon);
        await using LiveVm vm = new(daemon, "vm0");
        await vm.StartAsync();
        await vm.SaysAsync("TEXT end");
        Assert.Contains("TEXT write=1", vm.Said, StringComparison.Ordinal); // VIRTIO_BLK_S_IOERR
        Assert.Contains("local-hostname: \"web1\"", vm.Said, StringComparison.Ordinal);
        string said = vm.Said.Replace("\r", "", StringComparison.Ordinal);
        Assert.Contains("TEXT #cloud-config\nhidden: 4711\n", said, StringComparison.Ordinal);
        VmInfo runs = await vm.ShowAsync();
        Assert.DoesNotContain(runs.Confinement!.Missing, m => m.StartsWith("seccomp", StringComparison.Ordinal));

        // Another daemon, a save, a restore: the guest has its disk still.
        string saved = daemon.In("saved");
        await daemon.EndAsync(await daemon.Client.SaveAsync("vm0", saved, Soon));
        string file = Assert.Single(Directory.GetFiles(daemon.In("state/seeds")));
        foreach (string part in Directory.GetFiles(saved).Where(f => !Path.GetFileName(f).StartsWith("memory", StringComparison.Ordinal)))
        {
            Assert.DoesNotContain("4711", Encoding.Latin1.GetString(await File.ReadAllBytesAsync(part)), StringComparison.Ordinal);
        }

        await daemon.EndAsync(await daemon.Client.RestoreAsync(saved, Soon));
        string before = vm.Said;
        await vm.ConsoleAsync();
        await vm.TellAsync("a");
        await vm.UntilAsync(
            () => Task.FromResult(vm.Said[before.Length..].Contains("hidden: 4711", StringComparison.Ordinal)), "the seed, read again");
        Assert.True(File.Exists(file));
        await vm.TellAsync("q");
        await vm.EndsWellAsync();
        await vm.UntilAsync(() => Task.FromResult(!File.Exists(file)), "the end of the seed");
        await daemon.Client.DoAsync("vm0", "start", Soon);
        await vm.UntilAsync(async () => !(await vm.ShowAsync()).State.IsUp(), "the end of a guest that has no disk any more");
        Assert.NotEqual(0, (await vm.ShowAsync()).LastExit?.ExitCode);
    }
}
