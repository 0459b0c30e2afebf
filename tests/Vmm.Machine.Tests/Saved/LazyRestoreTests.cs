using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Machine.Tests.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Saved;

/// <summary>Whole machines whose memory comes from saved files while they run, on the local KVM.</summary>
[Trait("Tier", "kvm")]
public sealed class LazyRestoreTests : IDisposable
{
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-lazy-").FullName;
    private int _saves;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>The guest checks each word that it reads, from memory and from its disk, and all of it in the end.</summary>
    [KvmTheory(NeedsPager = true)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Memory_and_disk_agree_while_memory_comes_from_the_files_also_when_it_is_saved_amid_that(bool limited)
    {
        VmSpec spec = Spec("paged", "mib=120 requests=0") with { Memory = ByteSize.MiB(200), Disks = [Disk(256 << 20)] };
        spec = !limited ? spec : spec with
        {
            Paging = new PagingSpec { Resident = MemoryPortion.Of(ByteSize.MiB(64)), Swap = Path.GetTempPath() },
        };
        Terminal terminal = new();
        Lazy running = new(VirtualMachine.Create(spec, terminal), terminal);
        terminal.WaitFor("READY paged");
        for (int round = 0; round < 4; round++)
        {
            await Task.Delay(50); // it goes on with its disk
            running = await AgainAsync(running);
            if (round % 2 == 0)
            {
                running.WaitRestored(); // else it is saved amid the prefetch
            }
        }

        running.WaitRestored();
        running.Terminal.Type("x");
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        Assert.Contains("RESULT paged", running.Terminal.Said, StringComparison.Ordinal);
        Assert.Equal(0UL, running.Machine.Paging!.Statistics.ForeignFaults);
        Assert.Equal(limited, running.Machine.Pager is not null);
        running.Dispose();
    }

    [KvmFact(NeedsPager = true)]
    public async Task A_guest_gives_memory_to_its_balloon_that_did_not_come_yet()
    {
        VmSpec spec = Spec("balloon", "mib=64") with { Memory = ByteSize.MiB(256), Balloon = new BalloonSpec() };
        Terminal terminal = new();
        Lazy running = new(VirtualMachine.Create(spec, terminal), terminal);
        terminal.WaitFor("FILLED");
        running = await AgainAsync(running);
        running.Terminal.Type("x");
        running.Terminal.WaitFor("INFLATED");
        running = await AgainAsync(running);
        running.Terminal.Type("x");
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.Dispose();
    }

    [KvmFact(NeedsPager = true)]
    public async Task Memory_that_comes_and_goes_has_its_content_and_comes_and_goes_on()
    {
        VmSpec spec = Spec("mem", "") with { Memory = ByteSize.MiB(64), MaxMemory = ByteSize.MiB(284) };
        Terminal terminal = new();
        Lazy running = new(VirtualMachine.Create(spec, terminal), terminal);
        terminal.WaitFor("NOW mib=0");
        foreach (ulong mib in new ulong[] { 40, 200, 6, 50 })
        {
            Ask(running, mib);
            running = await AgainAsync(running);
            Ask(running, mib + 8); // what comes now is zero; what there was, is looked at
            Ask(running, mib + 4);
        }

        running.Terminal.Type("q");
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.Dispose();

        static void Ask(Lazy running, ulong mib)
        {
            running.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + mib));
            running.Terminal.WaitFor($"NOW mib={mib} device={mib}");
        }
    }

    /// <summary>What was damaged is found when its MiB comes, wanted by the guest or not, and ends the VM.</summary>
    [KvmTheory(NeedsPager = true)]
    [InlineData(false, "memory-0.bin: the MiB at 83886080 has not the content that was saved")]
    [InlineData(true, "memory-0.bin: the file ends at ")]
    public async Task A_file_that_is_damaged_or_cut_off_ends_the_vm_by_name(bool cut, string reason)
    {
        string saved = await SaveDirtyAsync();
        string memory = Path.Combine(saved, "memory-0.bin");
        if (!cut)
        {
            Flip(memory, (80 << 20) + 4096);
        }

        Terminal terminal = new();
        VirtualMachine machine = Restore(saved, terminal);
        if (cut)
        {
            using FileStream file = File.Open(memory, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
            file.SetLength(70 << 20); // a mapping of it would be a SIGBUS
        }

        using Lazy running = new(machine, terminal);
        (ExitReason why, _) = running.WaitEnd();
        Assert.Equal(ExitReason.Failed, why);
        Assert.Contains(reason, running.Result!.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("CORRUPT", terminal.Said, StringComparison.Ordinal);
    }

    /// <summary>Its disk gets a differencing disk while pages that the guest writes to it are in the memory file only.</summary>
    [KvmFact(NeedsPager = true)]
    public async Task A_snapshot_of_its_disk_goes_with_a_restore_that_goes_on()
    {
        VmSpec spec = Spec("paged", "mib=120 requests=0") with { Memory = ByteSize.MiB(200), Disks = [Disk(256 << 20)] };
        Terminal terminal = new();
        Lazy running = new(VirtualMachine.Create(spec, terminal), terminal);
        terminal.WaitFor("READY paged");
        running = await AgainAsync(running);
        string top = Path.Combine(_folder, "top");
        Qcow2Creator.Create(top, Qcow2CreateOptions.Over(Path.Combine(_folder, "disk"), ImageFormat.Raw, 256 << 20));
        running.Machine.SnapshotDisks(
            [new DiskOverlay("disk0", RawFileBackend.Open(top, new RawFileOptions { IsImage = true }))], note: null);
        byte[] below = File.ReadAllBytes(Path.Combine(_folder, "disk"));
        running.WaitRestored();
        running.Terminal.Type("x");
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        Assert.Contains("RESULT paged", running.Terminal.Said, StringComparison.Ordinal);
        Assert.True(below.AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(_folder, "disk"))));
        running.Dispose();
    }

    /// <summary>Beneath the machine its file becomes one that cannot be read.</summary>
    [KvmFact(NeedsPager = true)]
    public async Task A_file_that_cannot_be_read_any_more_ends_the_vm_by_name()
    {
        string saved = await SaveDirtyAsync();
        Terminal terminal = new();
        VirtualMachine machine = Restore(saved, terminal);
        string own = Directory.GetFiles("/proc/self/fd").Single(
            fd => new FileInfo(fd).LinkTarget?.StartsWith(saved, StringComparison.Ordinal) == true);
        using (SafeFileHandle unreadable = File.OpenHandle(
            Path.Combine(_folder, "unreadable"), FileMode.Create, FileAccess.Write, FileShare.ReadWrite))
        {
            int number = int.Parse(Path.GetFileName(own), CultureInfo.InvariantCulture);
            Assert.Equal(number, Duplicate((int)unreadable.DangerousGetHandle(), number));
        }

        using Lazy running = new(machine, terminal);
        (ExitReason why, _) = running.WaitEnd();
        Assert.Equal(ExitReason.Failed, why);
        Assert.Matches("memory-0.bin: the memory at [0-9]+ cannot be read: ", running.Result!.Message);
        Assert.DoesNotContain("CORRUPT", terminal.Said, StringComparison.Ordinal);
    }

    [KvmFact(NeedsPager = true)]
    public async Task What_can_be_seen_without_reading_is_refused_before_the_guest_goes_on()
    {
        string saved = await SaveDirtyAsync();
        string memory = Path.Combine(saved, "memory-0.bin");
        Assert.Equal(0, Run("fallocate", "--punch-hole", "--keep-size", "--offset", $"{80 << 20}", "--length", $"{1 << 20}", memory));
        Refused("memory-0.bin: the MiB at 83886080", saved);
        using (FileStream file = File.Open(memory, FileMode.Open))
        {
            file.SetLength(70 << 20);
        }

        Refused("memory-0.bin: the file has 73400320 bytes", saved);
        File.Delete(memory);
        Refused("memory-0.bin is missing", saved);

        void Refused(string message, string saved)
        {
            Terminal terminal = new();
            StateException refused = Assert.Throws<StateException>(() => Restore(saved, terminal).Dispose());
            Assert.Contains(message, refused.Message, StringComparison.Ordinal);
            terminal.Dispose();
        }
    }

    [KvmFact(NeedsPager = true)]
    public async Task It_ends_before_and_amid_the_prefetch_and_lets_go_of_the_files()
    {
        string saved = await SaveDirtyAsync();
        for (int wait = 0; wait < 3; wait++)
        {
            Terminal terminal = new();
            VirtualMachine machine = Restore(saved, terminal);
            if (wait == 0)
            {
                machine.Dispose();
                terminal.Dispose();
            }
            else
            {
                using Lazy running = new(machine, terminal);
                Thread.Sleep(wait * 5);
            }

            Assert.DoesNotContain(Directory.GetFiles("/proc/self/fd"),
                fd => new FileInfo(fd).LinkTarget?.StartsWith(saved, StringComparison.Ordinal) == true);
        }
    }

    private static VirtualMachine Restore(string saved, Terminal terminal) =>
        SavedMachine.Read(saved).Restore(new PathResources(), terminal, lazily: true);

    private static VmSpec Spec(string guest, string arguments)
    {
        VmSpec spec = GuestKit.GuestSpec(guest);
        return spec with { Boot = spec.Boot with { Cmdline = arguments } };
    }

    private static void Flip(string path, long at)
    {
        using FileStream file = File.Open(path, FileMode.Open);
        file.Position = at;
        int value = file.ReadByte();
        file.Position = at;
        file.WriteByte((byte)(value ^ 1));
    }

    [DllImport("libc", EntryPoint = "dup2")]
    private static extern int Duplicate(int from, int to);

    private static int Run(params string[] command)
    {
        using Process process = Process.Start(new ProcessStartInfo(command[0], command[1..]))!;
        process.WaitForExit();
        return process.ExitCode;
    }

    private DiskSpec Disk(long bytes)
    {
        string disk = Path.Combine(_folder, "disk");
        using FileStream file = File.Create(disk);
        file.SetLength(bytes);
        return new DiskSpec { Path = disk, Queues = 1 };
    }

    private async Task<string> SaveDirtyAsync()
    {
        Terminal terminal = new();
        using Lazy running = new(
            VirtualMachine.Create(Spec("dirty", "mib=64 seconds=0 tsc_khz=2500000") with { Memory = ByteSize.MiB(160) }, terminal),
            terminal);
        terminal.WaitFor("TICK dirty");
        return await SaveAsync(running.Machine);
    }

    private async Task<string> SaveAsync(VirtualMachine machine)
    {
        string folder = Path.Combine(_folder, "saved" + _saves++);
        await MachineSave.SaveAsync(machine, folder, s_long, goOn: false);
        return folder;
    }

    /// <summary>Saves a machine and goes on with it lazily.</summary>
    private async Task<Lazy> AgainAsync(Lazy running)
    {
        string saved = await SaveAsync(running.Machine);
        running.Dispose();
        Terminal terminal = new();
        return new Lazy(Restore(saved, terminal), terminal);
    }

    /// <summary>A machine that runs on a thread beside the test.</summary>
    private sealed class Lazy : IDisposable
    {
        private readonly Thread _thread;
        private readonly Func<RunResult> _result;
        private readonly ManualResetEventSlim _restored = new();

        internal Lazy(VirtualMachine machine, Terminal terminal)
        {
            (Machine, Terminal) = (machine, terminal);
            if (machine.MemoryRestore is { } restore)
            {
                restore.Ended = _ => _restored.Set();
            }

            _thread = GuestKit.Start(machine, out _result);
            while (machine.State == VmState.Starting)
            {
                Thread.Sleep(1);
            }
        }

        internal VirtualMachine Machine { get; }

        internal Terminal Terminal { get; }

        internal RunResult? Result { get; private set; }

        internal void WaitRestored()
        {
            Assert.True(_restored.Wait(s_long), $"{Machine.MemoryRestore!.Progress}");
            Assert.Equal((0UL, true), (Machine.MemoryRestore!.Progress.LeftBytes, Machine.MemoryRestore.IsOver));
        }

        internal (ExitReason, int?) WaitEnd()
        {
            Assert.True(_thread.Join(s_long), Terminal.Said);
            Result = _result();
            return (Result.Reason, Result.ExitCode);
        }

        public void Dispose()
        {
            Machine.Dispose();
            _thread.Join();
            Terminal.Dispose();
            _restored.Dispose();
        }
    }
}
