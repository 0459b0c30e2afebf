using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net.Sockets;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>What a worker that was taken over could fill: its end record, its disks' file systems, the daemon's journal.</summary>
[Trait("Tier", "kvm")]
public sealed class WorkerBoundsTests
{
    [KvmFact]
    public async Task The_end_record_has_its_room_from_the_start_and_the_worker_no_descriptor_that_could_make_it_longer()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(WorkerFixture.SpecOf("idle"));
        string end = Path.Combine(fixture.Folder, worker.VmId + ".end");
        Assert.Equal(EndRecord.Length, new FileInfo(end).Length);
        Assert.Equal(
            EndRecord.Length / 512,
            int.Parse(await OutputAsync("stat", ["-c", "%b", end]), System.Globalization.CultureInfo.InvariantCulture));
        string[] open = [.. Directory.GetFiles($"/proc/{worker.ProcessId}/fd")
            .Select(f => File.ResolveLinkTarget(f, returnFinalTarget: false)?.Name ?? "")];
        Assert.DoesNotContain(open, name => name.Contains(".end", StringComparison.Ordinal));
        Assert.Contains(".end", await File.ReadAllTextAsync($"/proc/{worker.ProcessId}/maps"), StringComparison.Ordinal);
    }

    [KvmFact]
    public async Task Files_of_a_worker_do_not_grow_beyond_its_largest_disk()
    {
        await using WorkerFixture fixture = new(); // no users of their own: every vmmd may limit them
        using Disks disks = new();
        string small = disks.Make(1 << 20), large = disks.Make(3 << 20);
        IWorker worker = await fixture.LaunchAsync(WorkerFixture.SpecOf("hotplug") with { Disks = [new DiskSpec { Path = small }] });
        Assert.Contains("file-size", worker.Confinement!.Applied);
        Assert.Equal(1ul << 20, Limit(worker.ProcessId));
        await worker.StartAsync(WorkerFixture.Soon);
        await worker.AddDiskAsync(new DiskSpec { Path = large }, WorkerFixture.Soon);
        Assert.Equal(3ul << 20, Limit(worker.ProcessId));
        IWorker again = Assert.Single(await fixture.RestartDaemonAsync());
        Assert.Contains("file-size", again.Confinement!.Applied);
        Assert.Equal(3ul << 20, Limit(again.ProcessId));
    }

    [Fact]
    public void A_write_beyond_the_limit_ends_the_process_and_the_file_stays()
    {
        string file = Path.GetTempFileName();
        try
        {
            using ProcessHandle child = ProcessHandle.Spawn(
                "/bin/sh",
                ["-c", "read x <&3; head -c 100000 /dev/zero > " + file],
                new Dictionary<string, string> { ["PATH"] = "/bin:/usr/bin" },
                [Gate(out Socket go)]);
            child.LimitFileSize(4096);
            Assert.Equal(4096ul, child.FileSizeLimit);
            go.Send("\n"u8);
            Assert.NotEqual(new ProcessEnd(true, 0, 0), child.Wait(30000));
            Assert.True(new FileInfo(file).Length <= 4096);
            go.Dispose();
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public async Task Lines_of_a_worker_are_bounded_in_number_and_length_and_have_no_control_characters()
    {
        (UnixStream ours, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        ConcurrentQueue<string> said = [];
        using WorkerErrors errors = new(ours, said.Enqueue);
        using (Socket worker = new(new SafeSocketHandle(theirs.Detach(), ownsHandle: true)))
        {
            worker.Send("\e[2Jred\a\n"u8);
            worker.Send(new byte[5000].Select(_ => (byte)'x').Append((byte)'\n').ToArray());
            for (int i = 0; i < 500; i++)
            {
                worker.Send("again\n"u8);
            }

            worker.Send("unfinished"u8);
        }

        await errors.Finished.WaitAsync(TimeSpan.FromMinutes(1));
        string[] lines = [.. said];
        Assert.Equal(" [2Jred ", lines[0]);
        Assert.Equal(WorkerErrors.LongestLine + 3, lines[1].Length);
        Assert.InRange(lines.Length, WorkerErrors.Burst, WorkerErrors.Burst + 60); // the bucket fills a little meanwhile
        Assert.All(lines, line => Assert.DoesNotContain(line, char.IsControl));
        Assert.Contains("lines left out", lines[^1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task One_that_writes_without_end_has_to_wait()
    {
        (UnixStream ours, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        int lines = 0;
        using WorkerErrors errors = new(ours, _ => Interlocked.Increment(ref lines));
        using Socket worker = new(new SafeSocketHandle(theirs.Detach(), ownsHandle: true)) { Blocking = false };
        byte[] flood = [.. Enumerable.Repeat((byte)'\n', 65536)];
        long taken = 0, until = Environment.TickCount64 + 3000;
        while (Environment.TickCount64 < until)
        {
            try
            {
                taken += worker.Send(flood);
            }
            catch (SocketException)
            {
                await Task.Delay(10);
            }
        }

        Assert.InRange(taken, 1, 2 << 20); // what the socket holds, and some reads
        Assert.InRange(Volatile.Read(ref lines), 1, 2 * WorkerErrors.Burst);
    }

    [KvmFact]
    public async Task What_a_worker_says_is_told_with_its_process_and_VM_and_one_whose_daemon_went_lives_on()
    {
        ConcurrentQueue<(int Process, string Vm, string Line)> said = [];
        await using WorkerFixture fixture =
            new(change: o => o with { Isolated = false, WorkerSaid = (process, vm, line) => said.Enqueue((process, vm, line)) });
        IWorker worker = await fixture.LaunchAsync(WorkerFixture.SpecOf("idle")); // says that it is not isolated
        Assert.True(SpinWait.SpinUntil(
            () => said.Any(s => s.Line.Contains("not confined by", StringComparison.Ordinal)), TimeSpan.FromSeconds(30)));
        Assert.Contains(said, s => s.Process == worker.ProcessId && string.Equals(s.Vm, worker.VmId, StringComparison.Ordinal));
        string id = worker.VmId;
        Assert.Equal(id, Assert.Single(await fixture.RestartDaemonAsync()).VmId);
    }

    private static FileDescriptorHandle Gate(out Socket go)
    {
        (UnixStream ours, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        go = new Socket(new SafeSocketHandle(ours.Detach(), ownsHandle: true));
        return theirs;
    }

    private static ulong Limit(int process) =>
        ulong.Parse(
            File.ReadAllLines($"/proc/{process}/limits").Single(l => l.StartsWith("Max file size", StringComparison.Ordinal)).Split(
                ' ', StringSplitOptions.RemoveEmptyEntries)[3],
            System.Globalization.CultureInfo.InvariantCulture);

    private static async Task<string> OutputAsync(string program, string[] arguments)
    {
        using Process process =
            Process.Start(new ProcessStartInfo(program, arguments) { UseShellExecute = false, RedirectStandardOutput = true })!;
        string said = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return said.Trim();
    }

    private sealed class Disks : IDisposable
    {
        private readonly string _folder = Directory.CreateTempSubdirectory("vmm-disks-").FullName;

        public void Dispose() => Directory.Delete(_folder, recursive: true);

        internal string Make(int length)
        {
            string path = Path.Combine(_folder, $"{length}.raw");
            File.WriteAllBytes(path, new byte[length]);
            return path;
        }
    }
}
