using System.Buffers.Binary;
using System.Diagnostics;
using System.Net.Sockets;
using Vmm.Devices.VhostUser;
using Vmm.Interop;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.State;
using Vmm.Testing;
using Vmm.Testing.Virtio;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Devices of whole machines that other programs serve: qemu-storage-daemon, and back ends of our own.</summary>
[Trait("Tier", "kvm")]
public sealed class VhostUserTests : IDisposable
{
    private const int DiskBytes = 64 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-vhost-user-test-").FullName;
    private readonly List<Process> _programs = [];

    private string Socket => Path.Combine(_folder, "s");

    public void Dispose()
    {
        foreach (Process program in _programs)
        {
            program.Kill();
            program.WaitForExit(20_000);
            program.Dispose();
        }

        Directory.Delete(_folder, recursive: true);
    }

    [StorageDaemonFact]
    public void A_disk_of_qemu_storage_daemon_holds_what_its_guest_writes()
    {
        foreach (VirtioTransport transport in Enum.GetValues<VirtioTransport>())
        {
            Process program = StartStorageDaemon(queues: 2);
            using Terminal terminal = new();
            VmSpec spec = Disk("requests=300", queues: 2) with { VirtioTransport = transport };
            using (VirtualMachine machine = VirtualMachine.Create(spec, terminal))
            {
                Thread run = Start(machine, out Func<RunResult> result);
                Assert.True(run.Join(120_000));
                Assert.True(result().ExitCode == 0, terminal.Said);
            }

            Assert.Contains($"sectors={DiskBytes / 512}", terminal.Said, StringComparison.Ordinal);
            Assert.Contains("RESULT blk verify=ok", terminal.Said, StringComparison.Ordinal);
            End(program);
        }
    }

    [StorageDaemonFact]
    public async Task Paused_its_back_end_may_be_another_process_and_saved_it_is_not()
    {
        Process first = StartStorageDaemon();
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Disk("requests=0"), terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("DISK");
        for (int i = 0; i < 10; i++)
        {
            machine.Pause(); // amid requests
            machine.Resume();
        }

        StateException refused = await Assert.ThrowsAsync<StateException>(
            () => MachineSave.SaveAsync(machine, Path.Combine(_folder, "saved"), TimeSpan.FromSeconds(60), goOn: true));
        Assert.Contains("vhost-user-blk device cannot be saved", refused.Message, StringComparison.Ordinal);
        machine.Pause();
        End(first);
        StartStorageDaemon();
        machine.Resume();
        Thread.Sleep(500); // requests with the second
        terminal.Type("q");
        Assert.True(run.Join(120_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
        Assert.Contains("RESULT blk verify=ok", terminal.Said, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_back_end_that_dies_amid_requests_is_not_noticed_by_the_guest()
    {
        BackEndDisk disk = new(DiskBytes);
        using BackEndListener ends = new(Socket, (stream, number) =>
        {
            Random death = new(number);
            return new BlkBackEnd(stream, disk) { Dies = () => number < 4 && death.Next(800) == 0 };
        });
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Disk("requests=400"), terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.True(run.Join(180_000), terminal.Said);
        Assert.True(result().ExitCode == 0, terminal.Said);
        Assert.Contains("id=back-end", terminal.Said, StringComparison.Ordinal);
        Assert.Contains("RESULT blk verify=ok", terminal.Said, StringComparison.Ordinal);
        Assert.True(ends.Count > 1, "no back end died");
        Assert.Null(ends.Failure);
    }

    [KvmFact]
    public void A_network_device_goes_on_with_the_next_back_end()
    {
        using BackEndListener ends = new(Socket, (stream, _) => new NetBackEnd(stream));
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("net") with { Devices = [new VhostUserNetSpec { Socket = Socket, Mac = "52:54:00:00:00:07" }] };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY mac=52:54:00:00:00:07");
        Ask((NetBackEnd)ends.Last);
        ends.Last.Dispose();
        Assert.True(SpinWait.SpinUntil(() => ends.Count == 2, 20_000), "no other back end is looked for");
        Ask((NetBackEnd)ends.Last);
        ((NetBackEnd)ends.Last).Send(Udp(port: 9));
        Assert.True(run.Join(60_000), terminal.Said);
        Assert.True(result().ExitCode == 0, terminal.Said);
        Assert.Null(ends.Failure);
    }

    [KvmFact]
    public void A_program_that_is_not_there_is_told_with_what_to_do()
    {
        using Terminal terminal = new();
        VhostUserException missing = Assert.Throws<VhostUserException>(() => VirtualMachine.Create(Disk(""), terminal));
        Assert.Equal(
            $"vhost-user-blk0: connect to {Socket}: No such file or directory: start the program that serves it first", missing.Message);
        using BackEndListener ends = new(Socket, (stream, _) => new BlkBackEnd(stream, new BackEndDisk(DiskBytes)));
        VhostUserException small = Assert.Throws<VhostUserException>(() => VirtualMachine.Create(Disk("", queues: 2), terminal));
        Assert.Contains("serves 1 rings, and needs 2", small.Message, StringComparison.Ordinal);
    }

    private VmSpec Disk(string cmdline, int queues = 1)
    {
        VmSpec spec = GuestSpec("blk");
        return spec with
        {
            Boot = spec.Boot with { Cmdline = cmdline },
            Devices = [new VhostUserBlkSpec { Socket = Socket, Queues = queues }],
        };
    }

    private Process StartStorageDaemon(int queues = 1)
    {
        string image = Path.Combine(_folder, "disk");
        if (!File.Exists(image))
        {
            using FileStream file = File.Create(image);
            file.SetLength(DiskBytes);
        }

        File.Delete(Socket);
        Process program = Process.Start(StorageDaemonFactAttribute.Program,
        [
            "--blockdev", $"driver=file,node-name=file,filename={image},discard=unmap",
            "--blockdev", "driver=raw,node-name=disk,file=file,discard=unmap",
            "--export", $"type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},addr.type=unix,addr.path={Socket}",
        ]);
        _programs.Add(program);
        Assert.True(SpinWait.SpinUntil(() => program.HasExited || File.Exists(Socket), 20_000) && !program.HasExited,
            "qemu-storage-daemon does not start");
        return program;
    }

    private void End(Process program)
    {
        program.Kill();
        program.WaitForExit(20_000);
        _programs.Remove(program);
        program.Dispose();
    }

    private static void Ask(NetBackEnd end)
    {
        byte[] request = new byte[60];
        request.AsSpan(0, 6).Fill(0xff);
        byte[] own = [2, 0, 0, 0, 0, 9];
        own.CopyTo(request, 6);
        byte[] arp = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, .. own, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2];
        arp.CopyTo(request, 12);
        for (int i = 0; i < 100; i++)
        {
            end.Send(request);
            if (end.FromGuest.TryTake(out byte[]? answer, 200))
            {
                Assert.Equal([0x52, 0x54, 0, 0, 0, 7], answer!.AsSpan(22, 6).ToArray());
                return;
            }
        }

        Assert.Fail("the guest does not answer");
    }

    private static byte[] Udp(ushort port)
    {
        byte[] frame = new byte[60];
        byte[] head =
            [0x52, 0x54, 0, 0, 0, 7, 2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        head.CopyTo(frame, 0);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(34), 4000);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(36), port);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(38), 16);
        return frame;
    }
}
