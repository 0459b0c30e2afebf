using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using Vmm.Devices.Virtio.Mem;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Machine.Tests.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.State;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Saved;

/// <summary>Whole machines on the local KVM, saved into a folder and restored from it.</summary>
[Trait("Tier", "kvm")]
public sealed class SaveRestoreTests : IDisposable
{
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-saved-").FullName;
    private readonly List<string> _said = [];
    private int _saves;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public async Task A_counting_guest_goes_on_where_it_was_saved()
    {
        Running running = new(VirtualMachine.Create(Spec("spin", "every=20000000 ticks=12"), Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("TICK spin 3");
        string saved = await SaveAsync(running);
        running.End(_said);
        running = Restore(saved);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End(_said);
        string all = string.Concat(_said);
        int[] ticks = [.. Regex.Matches(all, @"TICK spin (\d+)\n").Select(m => int.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture))];
        Assert.Equal(Enumerable.Range(1, 12), ticks);
        Assert.Contains("RESULT spin ticks=12", all, StringComparison.Ordinal);
    }

    [KvmTheory]
    [InlineData(VirtioTransport.Pci)]
    [InlineData(VirtioTransport.Mmio)]
    public async Task A_guest_that_writes_its_disk_loses_nothing_in_twenty_saves(VirtioTransport transport)
    {
        Running running = new(VirtualMachine.Create(DiskSpec(transport, "requests=12000"), Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("DISK");
        int restored = 0;
        for (; restored < 20 && !running.HasEnded; restored++)
        {
            await Task.Delay(10 + (restored * 3));
            if (!await TrySaveAsync(running))
            {
                break;
            }

            running.End(_said);
            running = Restore(Saved);
            Directory.Delete(Saved, recursive: true);
        }

        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End(_said);
        Assert.Contains("RESULT blk verify=ok", string.Concat(_said), StringComparison.Ordinal);
        Assert.True(restored >= 5, $"the guest ended after {restored} saves");
    }

    [KvmFact]
    public async Task An_interrupt_pin_that_was_up_is_up_after_the_restore_and_falls_when_the_guest_reads_its_cause()
    {
        VmSpec blk = DiskSpec(VirtioTransport.Pci, "hold=1 pin=20");
        VmSpec spec = blk with { Boot = Spec("intx", blk.Boot.Cmdline).Boot, Rng = false };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("PENDING");
        string saved = await SaveAsync(running);
        running.End(_said);
        running = Restore(saved);
        running.Send("g");
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End(_said);
        Assert.Contains("RESULT intx", string.Concat(_said), StringComparison.Ordinal);
    }

    [KvmFact]
    public async Task A_disk_that_was_plugged_behind_a_port_and_asked_back_works_on_and_leaves_after_the_restore()
    {
        VmSpec spec = DiskSpec(VirtioTransport.Pci, "") with { Boot = Spec("ports", "keep=1").Boot, Hotplug = HotplugWay.Pcie };
        Running running = new(VirtualMachine.Create(spec with { Disks = [] }, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("READY ports=16");
        running.Machine.AddDisk(spec.Disks[0], new PathResources().OpenDisk(0, spec.Disks[0]));
        terminal.WaitFor("ADDED bus=1");
        Assert.Equal(RemovalOutcome.Refused, await running.Machine.RemoveAsync("disk0", TimeSpan.Zero, force: false, default));
        terminal.WaitFor("KEPT bus=1");
        string saved = await SaveAsync(running);
        running.End(_said);

        running = Restore(saved);
        running.Send("v");
        running.WaitFor("VERIFIED bus=1");
        TaskCompletionSource<RemovalOutcome> gone = new(TaskCreationOptions.RunContinuationsAsynchronously);
        running.Machine.DeviceRemoved += (_, e) => gone.TrySetResult(e.Outcome);
        running.Send("e");
        Assert.Equal(RemovalOutcome.Removed, await gone.Task.WaitAsync(s_long));
        running.Send("q");
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End(_said);
    }

    [KvmTheory]
    [InlineData(VirtioTransport.Pci)]
    [InlineData(VirtioTransport.Mmio)]
    public async Task A_guest_that_talks_on_a_virtio_console_answers_after_every_restore(VirtioTransport transport)
    {
        VmSpec spec = Spec("vcon", "") with { Console = ConsoleKind.Virtio, VirtioTransport = transport, Balloon = new BalloonSpec() };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("READY");
        for (int i = 0; i < 3; i++)
        {
            running.Type($"before {i}\n");
            string saved = await SaveAsync(running);
            running.End([]);
            running = Restore(saved);
            running.Type($"after {i}\n");
        }

        running.Type("q\n", isAnswered: false);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);
    }

    [KvmTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task What_is_typed_before_and_during_a_save_comes_once_and_in_order(bool goOn)
    {
        VmSpec spec = Spec("vcon", "") with { Console = ConsoleKind.Virtio };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("READY");
        terminal.Forget();

        // More than a console that stands still keeps: some of it is with the device, some in between, some with the user.
        string before = string.Concat(Enumerable.Range(0, 700).Select(i => $"{i:0000000}\n")), during = "while it was saved\n";
        running.Machine.Pause();
        terminal.Type(before);
        SpinWait.SpinUntil(() => terminal.Untaken.Length < before.Length - 4096, TimeSpan.FromSeconds(10));
        bool typed = false;
        await MachineSave.SaveAsync(running.Machine, Saved, s_long, goOn, _ =>
        {
            if (!typed)
            {
                typed = true;
                terminal.Type(during);
                Thread.Sleep(100); // somebody who would take it has the time to
            }
        });
        if (goOn)
        {
            running.Machine.Resume();
        }
        else
        {
            string untaken = terminal.Untaken;
            running.End([]);
            running = Restore(Saved);
            running.Send(untaken);
        }

        running.WaitFor(during);
        Assert.Equal(before + during, running.Said);
        running.Type("q\n", isAnswered: false);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);
    }

    [KvmFact]
    public async Task A_machine_of_several_vnodes_and_vCPUs_has_a_file_for_each_vnode_and_goes_on()
    {
        VmSpec spec = Spec("spin", "every=20000000 ticks=8") with
        {
            Cpus = 3,
            Memory = ByteSize.MiB(192),
            Numa = new NumaSpec
            {
                Vnodes =
                [
                    new VnodeSpec { Cpus = [0, 2], Memory = ByteSize.MiB(128) }, new VnodeSpec { Cpus = [1], Memory = ByteSize.MiB(64) },
                ],
            },
        };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("TICK spin 2");
        string saved = await SaveAsync(running);
        running.End(_said);
        Assert.Equal(128 << 20, new FileInfo(Path.Combine(saved, "memory-0.bin")).Length);
        Assert.Equal(64 << 20, new FileInfo(Path.Combine(saved, "memory-1.bin")).Length);
        running = Restore(saved);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End(_said);
        Assert.Contains("RESULT spin ticks=8", string.Concat(_said), StringComparison.Ordinal);
    }

    [KvmTheory]
    [InlineData(VirtioTransport.Pci)]
    [InlineData(VirtioTransport.Mmio)]
    public async Task Memory_that_comes_and_goes_has_its_content_and_comes_and_goes_on(VirtioTransport transport)
    {
        VmSpec spec = Spec("mem", "") with { Memory = ByteSize.MiB(64), MaxMemory = ByteSize.MiB(284), VirtioTransport = transport };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("NOW mib=0");
        foreach (ulong mib in new ulong[] { 40, 200, 6, 50 })
        {
            Ask(running, mib); // the guest looks at what it has all the time, and says so when its size changes
            string saved = await SaveAsync(running);
            running.End([]);
            long bytes = AllocatedBytes(Path.Combine(saved, "memory-0-hot.bin"));
            Assert.InRange(bytes, (long)mib << 16, ((long)mib << 16) + (1 << 16)); // each 16th page, holes else
            running = Restore(saved);
            VnodeMemoryState state = running.Machine.VnodeStates.Single();
            Assert.Equal((ByteSize.MiB(64 + mib), ByteSize.MiB(64 + mib)), (state.Asked, state.Present));
            Ask(running, mib + 8); // what comes now is zero; what there was, is looked at
            Ask(running, mib + 4);
        }

        running.Type("q", isAnswered: false);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);

        static void Ask(Running running, ulong mib)
        {
            running.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + mib));
            running.WaitFor($"NOW mib={mib} device={mib}");
        }
    }

    [KvmFact]
    public async Task Memory_that_comes_and_goes_is_refused_when_its_file_is_damaged_or_away_and_what_was_unplugged_comes_back_empty()
    {
        VmSpec spec = Spec("mem", "") with { Memory = ByteSize.MiB(64), MaxMemory = ByteSize.MiB(128) };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("NOW mib=0");
        running.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + 8));
        terminal.WaitFor("NOW mib=8 device=8");
        string saved = await SaveAsync(running);
        running.End([]);
        string hot = Path.Combine(saved, "memory-0-hot.bin");
        FlipByte(hot, (20 << 20) + (3 * 4096)); // a page that the guest looks at
        Refused("memory-0-hot.bin: the MiB at 20971520", saved);
        SavedDocument.ForgeChecksum(saved, vnode: 0, mib: 20); // data where nothing was plugged, of one who computes checksums, too
        running = Restore(saved);
        running.Machine.SetVnodeMemory(0, ByteSize.MiB(64 + 40)); // the guest fails when new memory is not zero
        running.WaitFor("NOW mib=40 device=40");
        running.Type("q", isAnswered: false);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);
        File.Delete(hot);
        Refused("memory-0-hot.bin is missing", saved);
    }

    [KvmFact]
    public async Task From_quiesce_to_resume_no_page_goes_nobody_is_asked_for_memory_and_no_vnode_moves()
    {
        VmSpec spec = Spec("mem", "") with { Memory = ByteSize.MiB(64), MaxMemory = ByteSize.MiB(128), Balloon = new BalloonSpec() };
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("NOW mib=0");
        VirtualMachine machine = running.Machine;
        machine.SetVnodeMemory(0, ByteSize.MiB(64 + 8));
        terminal.WaitFor("NOW mib=8 device=8");
        VirtioMem device = (VirtioMem)machine.DeviceSet.All.Single(d => d.Device is VirtioMem).Device;
        int looks = 0;
        Action<double> look = _ =>
        {
            if (looks++ > 0)
            {
                return;
            }

            // What a balloon and free page reporting call, and what an unplugged block does.
            Assert.Equal(["the VM is being saved"], machine.MapOwner.Discards.Reasons);
            GuestAddress page = new(60 << 20);
            Assert.True(machine.Memory.Dma.TryWrite(page, [0x5A]));
            Assert.Equal(0, machine.Memory.Discard(page, 4096, out ulong discarded));
            Assert.Equal(0UL, discarded);
            byte[] there = new byte[1];
            machine.Memory.Dma.TryRead(page, there);
            Assert.Equal([0x5A], there);
            foreach (Action wish in new Action[] { () => machine.SetVnodeMemory(0, ByteSize.MiB(64)), () => machine.SetBalloon(1 << 20) })
            {
                Assert.Contains("is being saved", Assert.Throws<VnodeMemoryException>(wish).Message, StringComparison.Ordinal);
            }

            Assert.Equal(ByteSize.MiB(8), device.Info.Requested);
            Assert.Equal(0UL, machine.Balloon!.Info().TargetBytes);
            Assert.False(machine.Board.Homes.Gate.TryEnter());
        };
        await MachineSave.SaveAsync(machine, Saved, s_long, goOn: true, look);
        Assert.True(looks > 0);
        Assert.Empty(machine.MapOwner.Discards.Reasons);
        Assert.True(machine.Board.Homes.Gate.TryEnter());
        machine.Board.Homes.Gate.Leave();
        machine.SetVnodeMemory(0, ByteSize.MiB(64 + 2));
        running.WaitFor("NOW mib=2 device=2");
        running.Type("q", isAnswered: false);
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);
    }

    [KvmFact]
    public async Task A_machine_that_was_saved_goes_on_itself_and_its_copy_does_too()
    {
        Running running = new(VirtualMachine.Create(Spec("spin", "every=20000000 ticks=12"), Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("TICK spin 2");
        string saved = await SaveAsync(running, goOn: true);
        running.Machine.Pause();
        string paused = await SaveAsync(running, goOn: true);
        Assert.Equal(VmState.Paused, running.Machine.State);
        running.Machine.Resume();
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);
        foreach (string folder in new[] { saved, paused })
        {
            Running copy = Restore(folder);
            Assert.Equal((ExitReason.DebugExit, 0), copy.WaitEnd());
            copy.End([]);
        }
    }

    [KvmFact]
    public async Task Memory_files_are_sparse_and_only_their_owner_reads_them()
    {
        Running running = new(VirtualMachine.Create(Spec("idle", ""), Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("READY");
        string saved = await SaveAsync(running);
        running.End([]);
        FileInfo memory = new(Path.Combine(saved, "memory-0.bin"));
        Assert.Equal(128 << 20, memory.Length);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, memory.UnixFileMode);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, new DirectoryInfo(saved).UnixFileMode);
        Assert.InRange(AllocatedBytes(memory.FullName), 4096, 16 << 20);
        string[] names = [.. Directory.GetFiles(saved).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)];
        Assert.Equal(["memory-0.bin", "vm.json"], names);
        Restore(saved).End([]);
    }

    [KvmFact]
    public async Task A_save_that_fails_leaves_the_machine_running_and_nothing_behind()
    {
        Running running = new(VirtualMachine.Create(Spec("spin", "every=20000000 ticks=8"), Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("TICK spin 1");
        Directory.CreateDirectory(Saved);
        IOException taken = await Assert.ThrowsAsync<IOException>(() => MachineSave.SaveAsync(running.Machine, Saved, s_long, goOn: false));
        Assert.Contains("exists already", taken.Message, StringComparison.Ordinal);
        Directory.Delete(Saved);
        using CancellationTokenSource cancel = new();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => MachineSave.SaveAsync(running.Machine, Saved, s_long, goOn: false, _ => cancel.Cancel(), cancel.Token));
        Assert.Equal(VmState.Running, running.Machine.State);
        Assert.Empty(Directory.GetFileSystemEntries(_folder));
        Assert.Equal((ExitReason.DebugExit, 0), running.WaitEnd());
        running.End([]);
    }

    [KvmFact]
    public async Task What_was_damaged_or_is_not_there_any_more_is_refused_by_name()
    {
        VmSpec spec = DiskSpec(VirtioTransport.Pci, "requests=100000");
        Running running = new(VirtualMachine.Create(spec, Terminal(out Terminal terminal)), terminal);
        terminal.WaitFor("DISK");
        string saved = await SaveAsync(running);
        running.End([]);
        string memory = Path.Combine(saved, "memory-0.bin"), document = Path.Combine(saved, "vm.json");
        string disk = Path.Combine(_folder, "disk");
        FlipByte(memory, 20 << 20);
        Refused("memory-0.bin: the MiB at 20971520", saved);
        FlipByte(memory, 20 << 20);
        FlipByte(document, 5000);
        Refused("", saved);
        FlipByte(document, 5000);
        string whole = File.ReadAllText(document);
        using (JsonDocument json = JsonDocument.Parse(whole))
        {
            string rtc =
                json.RootElement.GetProperty("units").EnumerateArray().Single(u => u.GetProperty("name").GetString() is "rtc").GetRawText();
            Assert.Contains(rtc + ",", whole, StringComparison.Ordinal);
            File.WriteAllText(document, whole.Replace(rtc + ",", "", StringComparison.Ordinal));
        }

        Refused("the state of rtc is missing", saved);
        File.WriteAllText(document, whole);
        using (FileStream file = File.OpenWrite(disk))
        {
            file.SetLength(file.Length + 4096);
        }

        UnitsException other = Assert.Throws<UnitsException>(() => SavedMachine.Read(saved).Restore(new PathResources(), Terminal(out _)));
        Assert.Contains("device/disk0: virtio-blk: the disk had 32768 sectors", other.Message, StringComparison.Ordinal);
        File.Move(memory, memory + ".away");
        Refused("memory-0.bin is missing", saved);
        File.Delete(document);
        Refused("is no saved VM", saved);
    }

    private static void Refused(string message, string saved)
    {
        StateException refused = Assert.Throws<StateException>(
            () => SavedMachine.Read(saved).Restore(new PathResources(), Terminal(out _)).Dispose());
        Assert.Contains(message, refused.Message, StringComparison.Ordinal);
    }

    private string Saved => Path.Combine(_folder, "saved");

    private async Task<string> SaveAsync(Running running, bool goOn = false)
    {
        string folder = Saved + _saves++;
        await MachineSave.SaveAsync(running.Machine, folder, s_long, goOn);
        return folder;
    }

    /// <summary>False when the guest came to its end first.</summary>
    private async Task<bool> TrySaveAsync(Running running)
    {
        try
        {
            await MachineSave.SaveAsync(running.Machine, Saved, s_long, goOn: false);
            return true;
        }
        catch (VmStateException)
        {
            return false;
        }
    }

    private static Running Restore(string saved)
    {
        Terminal terminal = new();
        return new Running(SavedMachine.Read(saved).Restore(new PathResources(), terminal), terminal);
    }

    private static Terminal Terminal(out Terminal terminal) => terminal = new Terminal();

    private static VmSpec Spec(string guest, string arguments)
    {
        VmSpec spec = GuestKit.GuestSpec(guest);
        return spec with { Boot = spec.Boot with { Cmdline = arguments } };
    }

    private VmSpec DiskSpec(VirtioTransport transport, string arguments)
    {
        string disk = Path.Combine(_folder, "disk");
        using (FileStream file = File.Create(disk))
        {
            file.SetLength(16 << 20);
        }

        return Spec("blk", arguments) with { VirtioTransport = transport, Disks = [new DiskSpec { Path = disk, Queues = 1 }], Rng = true };
    }

    private static void FlipByte(string path, long at)
    {
        using FileStream file = File.Open(path, FileMode.Open);
        file.Position = at;
        int value = file.ReadByte();
        file.Position = at;
        file.WriteByte((byte)(value ^ 1));
    }

    private static long AllocatedBytes(string path)
    {
        ProcessStartInfo command = new("stat", ["-c", "%b", path]) { RedirectStandardOutput = true, UseShellExecute = false };
        using Process stat = Process.Start(command)!;
        return 512 * long.Parse(stat.StandardOutput.ReadToEnd(), CultureInfo.InvariantCulture);
    }

    /// <summary>A machine that runs on a thread beside the test.</summary>
    private sealed class Running
    {
        private readonly Terminal _terminal;
        private readonly Thread _thread;
        private readonly Func<RunResult> _result;

        internal Running(VirtualMachine machine, Terminal terminal)
        {
            (Machine, _terminal) = (machine, terminal);
            _thread = GuestKit.Start(machine, out _result);
            while (machine.State == VmState.Starting)
            {
                Thread.Sleep(1);
            }
        }

        internal VirtualMachine Machine { get; }

        internal void Type(string line, bool isAnswered = true)
        {
            _terminal.Forget();
            _terminal.Type(line);
            if (isAnswered)
            {
                _terminal.WaitFor(line);
            }
        }

        internal string Said => _terminal.Said;

        internal void Send(string text) => _terminal.Type(text);

        internal void WaitFor(string text) => _terminal.WaitFor(text);

        internal bool HasEnded => Machine.State == VmState.Stopped;

        internal (ExitReason, int?) WaitEnd()
        {
            _thread.Join();
            RunResult result = _result();
            return (result.Reason, result.ExitCode);
        }

        internal void End(List<string> said)
        {
            Machine.Dispose();
            _thread.Join();
            said.Add(_terminal.Said);
            _terminal.Dispose();
        }
    }
}
