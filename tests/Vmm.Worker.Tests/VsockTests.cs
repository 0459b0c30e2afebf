using System.Net.Sockets;
using System.Text;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>A guest that reaches programs of the host from a worker that may not make a socket.</summary>
[Trait("Tier", "kvm")]
public sealed class VsockTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-vs-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public async Task A_confined_guest_reaches_a_port_of_the_host_through_the_daemon()
    {
        string path = Path.Combine(_folder, "v");
        using Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path + "_4711"));
        listener.Listen();
        await using WorkerFixture fixture = new(pool: 1, firstUser: Environment.IsPrivilegedProcess ? 1_900_000_600u : null);
        IWorker worker = await fixture.LaunchAsync(Guest(path, 4711));
        await worker.StartAsync(Soon);
        using Socket guest = await listener.AcceptAsync(Soon);
        byte[] said = new byte[16];
        Assert.Equal("HELLO\n", Encoding.ASCII.GetString(said, 0, await guest.ReceiveAsync(said, Soon)));
        Assert.Equal(0, await guest.ReceiveAsync(said, Soon)); // it ended what it sends
    }

    [KvmFact]
    public async Task Nobody_there_is_a_refusal_and_not_a_hang()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 1_900_000_600u : null);
        IWorker worker = await fixture.LaunchAsync(Guest(Path.Combine(_folder, "v"), 5));
        await using (Stream console = await worker.OpenConsoleAsync(Soon))
        {
            await worker.StartAsync(Soon);
            Assert.Contains("the host answers 3", await ReadUntilAsync(console, "answers 3"), StringComparison.Ordinal); // RST
        }

        Assert.Equal(ExitReason.DebugExit, (await worker.Ended.WaitAsync(Soon)).Reason);
    }

    [KvmFact]
    public async Task A_vm_that_moves_to_another_worker_is_reached_by_the_name_that_it_had()
    {
        string path = Path.Combine(_folder, "v"), id = Guid.NewGuid().ToString();
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 1_900_000_600u : null);
        VmSpec spec = SpecOf("dirty", "mib=4 rate=2000 seconds=0 tsc_khz=2500000") with
        {
            Vsock = new VsockSpec { Cid = 7, Path = path },
        };
        IWorker worker = await fixture.LaunchAsync(spec, id);
        await using Stream heard = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(heard, "READY dirty");
        (UnixStream send, FileDescriptorHandle receive) = UnixStream.CreatePair();
        IWorker next;
        string move = Guid.NewGuid().ToString("N");
        await using (IIncomingWorker incoming = await fixture.Launcher.ReceiveAsync(id, move, spec, [receive], Soon))
        {
            await worker.Moves.BeginAsync(new MoveBody(1, 300, PassMemory: true), [send], Soon);
            send.Dispose();
            receive.Dispose();
            await worker.Moves.StopAsync(TimeSpan.FromSeconds(30), Soon);
            next = fixture.Own(await incoming.CompleteAsync(Soon));
        }

        Assert.True(File.Exists(path + ".next"));
        await worker.StopAsync(Soon);
        next.TakeNames();
        await next.StartAsync(Soon);
        Assert.False(File.Exists(path + ".next"));
        using Socket host = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await host.ConnectAsync(new UnixDomainSocketEndPoint(path), Soon); // the guest has no driver for it: it is the worker that listens
        await using Stream console = await next.OpenConsoleAsync(Soon);
        Assert.DoesNotContain("CORRUPT", await ReadUntilAsync(console, "TICK"), StringComparison.Ordinal);
    }

    private static VmSpec Guest(string path, int port) =>
        SpecOf("vsock", $"port={port}") with { Vsock = new VsockSpec { Cid = 7, Path = path } };
}
