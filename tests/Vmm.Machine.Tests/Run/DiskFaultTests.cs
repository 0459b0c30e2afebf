using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>A disk file that is cut short beneath a running guest: the machine tells so, once.</summary>
[Trait("Tier", "kvm")]
public sealed class DiskFaultTests
{
    [KvmFact]
    public void A_note_and_an_event_tell_of_a_disk_that_the_host_fails()
    {
        string disk = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(disk, new byte[32 << 20]);
            List<string> notes = [];
            List<(string, DiskStatus)> told = [];
            using Terminal terminal = new();
            using VirtualMachine machine =
                VirtualMachine.Create(GuestSpec("blk") with { Name = "web1", Disks = [new DiskSpec { Path = disk }] }, terminal, note =>
                {
                    lock (notes)
                    {
                        notes.Add(note);
                    }
                });
            machine.DiskFaulted += (_, fault) => told.Add((fault.Disk, fault.Status));
            using (FileStream file = File.OpenWrite(disk))
            {
                file.SetLength(0);
            }

            Thread run = Start(machine, out Func<RunResult> result);
            run.Join();
            Assert.Equal(ExitReason.DebugExit, result().Reason);
            Assert.Contains("status 1", terminal.Said, StringComparison.Ordinal);
            Assert.Equal([("disk0", DiskStatus.IoError)], told); // told before the run is over
            Assert.Equal(
                [$"web1: disk0 ({disk}): the host fails its requests with I/O errors; the guest gets I/O errors"],
                notes.Where(note => note.Contains("disk0", StringComparison.Ordinal)));
        }
        finally
        {
            File.Delete(disk);
        }
    }
}
