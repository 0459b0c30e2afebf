using System.Diagnostics;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>A guest that writes to a disk whose file system is full: the machine waits, and its guest notices nothing but time.</summary>
[Trait("Tier", "kvm")]
public sealed class DiskStallTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-full-").FullName;
    private readonly bool _mounted;

    public DiskStallTests() => _mounted = Environment.IsPrivilegedProcess
        && Mount("mount", "-t", "tmpfs", "-o", "size=8M", "vmm-test", _folder);

    public void Dispose()
    {
        if (_mounted)
        {
            Mount("umount", "-l", _folder);
        }

        Directory.Delete(_folder, recursive: true);
    }

    [KvmFact(NeedsRoot = true)]
    public void A_machine_whose_disk_is_full_goes_on_by_itself_when_there_is_space_again()
    {
        using VirtualMachine machine = Create(null, out Terminal terminal, out List<DiskStallEventArgs> told);
        using (terminal)
        {
            Thread run = Start(machine, out Func<RunResult> result);
            AwaitStall(machine);
            File.Delete(Ballast);
            run.Join();
            Assert.Contains("RESULT blk verify=ok", terminal.Said, StringComparison.Ordinal);
            Assert.Equal((ExitReason.DebugExit, 0), (result().Reason, result().ExitCode));
            lock (told)
            {
                Assert.Equal(("disk0", DiskStatus.NoSpace, true), (told[0].Disk, told[0].Fault, told[0].Waits));
                Assert.Equal(("disk0", DiskStatus.NoSpace, false), (told[^1].Disk, told[^1].Fault, told[^1].Waits));
            }
        }
    }

    [KvmFact(NeedsRoot = true)]
    public void A_resume_tries_again_and_a_machine_that_waits_is_not_saved()
    {
        using VirtualMachine machine = Create(null, out Terminal terminal, out List<DiskStallEventArgs> told);
        using (terminal)
        {
            Thread run = Start(machine, out Func<RunResult> result);
            AwaitStall(machine);
            int before = Count(told);
            machine.Resume(); // there is no space still
            Assert.True(SpinWait.SpinUntil(() => Count(told) > before && machine.State == VmState.Paused, 20_000));
            StateException refused = Assert.ThrowsAny<StateException>(() => Save(machine));
            Assert.Contains("wait for the host (no space)", refused.Message, StringComparison.Ordinal);
            Assert.Equal(VmState.Paused, machine.State);
            File.Delete(Ballast);
            run.Join();
            Assert.Contains("RESULT blk verify=ok", terminal.Said, StringComparison.Ordinal);
            Assert.Equal(0, result().ExitCode);
        }
    }

    [KvmFact(NeedsRoot = true)]
    public void A_guest_that_is_to_hear_of_it_does()
    {
        using VirtualMachine machine = Create(
            new OnErrorSpec { NoSpace = FaultPolicy.Report }, out Terminal terminal, out List<DiskStallEventArgs> told);
        using (terminal)
        {
            Start(machine, out Func<RunResult> result).Join();
            Assert.Contains("status 1", terminal.Said, StringComparison.Ordinal);
            Assert.Empty(told);
            Assert.NotEqual(0, result().ExitCode);
        }
    }

    [KvmFact(NeedsRoot = true)]
    public void A_machine_that_waits_can_be_stopped()
    {
        using VirtualMachine machine = Create(null, out Terminal terminal, out _);
        using (terminal)
        using (CancellationTokenSource stop = new())
        {
            RunResult? result = null;
            Thread run = new(() => result = machine.Run(stop.Token));
            run.Start();
            AwaitStall(machine);
            stop.Cancel();
            Assert.True(run.Join(20_000));
            Assert.Equal(ExitReason.Stopped, result!.Reason);
        }
    }

    private string Ballast => Path.Combine(_folder, "ballast");

    private VirtualMachine Create(OnErrorSpec? onError, out Terminal terminal, out List<DiskStallEventArgs> told)
    {
        string disk = Path.Combine(_folder, "disk.raw");
        using (FileStream file = File.Create(disk))
        {
            file.SetLength(4 << 20);
        }

        using (FileStream ballast = File.Create(Ballast))
        {
            byte[] piece = new byte[64 << 10];
            for (int i = 0; i < 96; i++)
            {
                ballast.Write(piece); // 6 MiB: the guest writes 4 MiB, of which 2 have room
            }
        }

        VmSpec spec = GuestSpec("blk");
        terminal = new Terminal();
        VirtualMachine machine = VirtualMachine.Create(
            spec with
            {
                Boot = spec.Boot with { Cmdline = "requests=1000" },
                Disks = [new DiskSpec { Path = disk, OnError = onError }],
            },
            terminal);
        List<DiskStallEventArgs> heard = told = [];
        machine.DiskStalled += (_, stall) =>
        {
            lock (heard)
            {
                heard.Add(stall);
            }
        };
        return machine;
    }

    private static void AwaitStall(VirtualMachine machine) => Assert.True(
        SpinWait.SpinUntil(() => machine.State == VmState.Paused && machine.Devices[0].Waits == DiskStatus.NoSpace, 60_000),
        "the machine does not wait");

    private static int Count(List<DiskStallEventArgs> told)
    {
        lock (told)
        {
            return told.Count;
        }
    }

    private void Save(VirtualMachine machine)
    {
        string folder = Path.Combine(Path.GetTempPath(), Path.GetFileName(_folder) + "-saved");
        try
        {
            MachineSave.SaveAsync(machine, folder, TimeSpan.FromSeconds(30), goOn: true).GetAwaiter().GetResult();
        }
        finally
        {
            if (Directory.Exists(folder))
            {
                Directory.Delete(folder, recursive: true);
            }
        }
    }

    private static bool Mount(params string[] command)
    {
        ProcessStartInfo start = new(command[0], command[1..]) { RedirectStandardError = true, UseShellExecute = false };
        using Process process = Process.Start(start)!;
        process.WaitForExit();
        return process.ExitCode == 0;
    }
}
