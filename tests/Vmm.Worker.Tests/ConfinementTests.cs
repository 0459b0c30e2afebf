using System.Diagnostics;
using Vmm.Interop;
using Vmm.Storage.Tests.Nbd;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>
/// Forbidden calls from inside each kind of thread, under the real filters, each in a process of its own; and what must still work there.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class ConfinementTests
{
    private const int Killed = 128 + 31; // SIGSYS

    private static readonly string[] Kinds = ["control", "vcpu", "io"];

    /// <summary>
    /// Calls by name, what they are called with (numbers of x86-64), and what meets them: EPERM, or the end of the process.
    /// </summary>
    private static readonly (string Name, string Call, bool Deadly)[] Forbidden =
    [
        ("open", "2 @/etc/passwd 0 0", false),
        ("openat", "257 -100 @/etc/passwd 0", false),
        ("openat2", "437 -100 @/etc/passwd 0 24", false),
        ("creat", "85 @/tmp/vmm-probe 384", false),
        ("stat", "4 @/etc/passwd 0", false),
        ("readlink", "89 @/proc/self/exe 0 0", false),
        ("unlink", "87 @/tmp/vmm-probe", false),
        ("chmod", "90 @/tmp/vmm-probe 511", false),
        ("socket unix", "41 1 1 0", false),
        ("socket inet", "41 2 1 0", false),
        ("socket packet", "41 17 3 768", false),
        ("connect", "42 0 0 0", false),
        ("bind", "49 0 0 0", false),
        ("kill init", "62 1 0", false),
        ("kill self", "62 0 0", false),
        ("tgkill other", "234 1 1 0", false),
        ("prctl dumpable", "157 4 1 0 0 0", false),
        ("prctl seccomp", "157 22 0 0 0 0", false),
        ("prlimit other", "302 1 0 0 0", false),
        ("ioctl TIOCSTI", "16 0 21522 0", false),
        ("ioctl USERFAULTFD_IOC_NEW", "16 0 43520 0", false),
        ("ioctl UFFDIO_COPY", "16 0 3223890435 0", false),
        ("ioctl KVM_CREATE_VM", "16 0 44545 0", false),
        ("mmap executable", "9 0 4096 5 34 -1 0", false),
        ("mprotect executable", "10 0 4096 4", false),
        ("pkey_mprotect", "329 0 4096 1 -1", false),
        ("shmat executable", "30 0 0 32768", false),
        ("inotify_init1", "294 0", false),
        ("shmget", "29 0 4096 512", false),
        ("move_pages other", "279 1 0 0 0 0 0", false),
        ("execve", "59 @/bin/true 0 0", true),
        ("execveat", "322 -100 @/bin/true 0 0 0", true),
        ("fork", "57", true),
        ("vfork", "58", true),
        ("ptrace", "101 0 0 0 0", true),
        ("process_vm_readv", "310 1 0 0 0 0 0", true),
        ("process_vm_writev", "311 1 0 0 0 0 0", true),
        ("pidfd_open", "434 1 0", true),
        ("mount", "165 @none @/tmp @tmpfs 0 0", true),
        ("umount2", "166 @/tmp 2", true),
        ("pivot_root", "155 @/ @/", true),
        ("chroot", "161 @/", true),
        ("unshare", "272 268435456", true),
        ("setns", "308 0 0", true),
        ("bpf", "321 0 0 0", true),
        ("perf_event_open", "298 0 0 -1 -1 0", true),
        ("userfaultfd", "323 0", true),
        ("keyctl", "250 0 -3 0", true),
        ("add_key", "248 @user @a @b 1 -3", true),
        ("setuid", "105 0", true),
        ("setresuid", "117 0 0 0", true),
        ("setgroups", "116 0 0", true),
        ("capset", "126 0 0", true),
        ("init_module", "175 0 0 0", true),
        ("kexec_load", "246 0 0 0 0", true),
        ("reboot", "169 0 0 0 0", true),
        ("open_by_handle_at", "304 0 0 0", true),
        ("clock_settime", "227 0 0", true),
        ("io_uring_setup", "425 8 0", true),
        ("io_uring_register", "427 -1 0 0 0", true),
        ("x32 getpid", "1073741863", true),
    ];

    /// <summary>What one kind may do and another may not.</summary>
    private static readonly (string Name, string Call, string[] Refused)[] Narrower =
    [
        ("seccomp filter", "317 1 0 0", ["vcpu", "io"]),
        ("memfd_create", "319 @x 0", ["vcpu", "io"]),
        ("move_pages", "279 0 0 0 0 0 0", ["vcpu", "io"]),
        ("mbind", "237 0 0 0 0 0 0", ["vcpu", "io"]),
        ("ioctl KVM_SET_USER_MEMORY_REGION", "16 -1 1075883590 0", ["vcpu"]),
        ("ioctl KVM_RUN", "16 -1 44672 0", ["io"]),
        ("ioctl BLKDISCARD", "16 -1 4727 0", ["vcpu"]),
        ("io_uring_enter", "426 -1 0 0 0 0 0", ["vcpu"]),
        ("pwritev", "296 -1 0 0 0", ["vcpu"]),
        ("sendmsg", "46 -1 0 0", ["vcpu"]),
        ("accept4", "288 -1 0 0 0", ["vcpu"]),
        ("socketpair", "53 1 1 0 0", ["vcpu", "io"]),
    ];

    /// <summary>
    /// What only some parts ask for, and who may do it: threads of a device, and those of a machine that has the part or can get it.
    /// </summary>
    private static readonly (string Name, string Call, string[] Allowed)[] ByNeed =
    [
        ("pwritev", "296 -1 0 0 0", ["disk", "image", "control", "small-control"]), // a disk can come to any machine
        ("pread64", "17 -1 0 0 0", ["disk", "image", "control", "small-control"]),
        ("fallocate", "285 -1 0 0 0", ["disk", "image", "control", "small-control"]),
        ("fdatasync", "75 -1", ["disk", "image", "control", "small-control"]),
        ("ftruncate", "77 -1 0", ["image", "control", "small-control"]), // an image's file grows; payload's threads leave it as it is
        ("writev", "20 -1 0 0", ["disk", "net", "vsock", "control", "small-control"]),
        ("ioctl BLKDISCARD", "16 -1 4727 0", ["disk", "image", "control", "small-control"]),
        ("ioctl BLKGETSIZE64", "16 -1 2148012658 0", ["control", "small-control"]),
        ("ioctl TUNSETQUEUE", "16 -1 1074025689 0", ["net", "vcpu", "small-vcpu", "firmware-vcpu", "control", "small-control"]),
        ("ioctl VHOST_SET_VRING_KICK", "16 -1 1074310944 0", ["net", "vcpu", "small-vcpu", "firmware-vcpu", "control", "small-control"]),
        ("ioctl VHOST_SET_OWNER", "16 -1 44801 0", ["control", "small-control"]),
        ("recvmsg", "47 -1 0 0", ["vsock", "control", "small-control"]),
        // flash shows and hides its bytes; a move begins the log of what is written
        ("ioctl KVM_SET_USER_MEMORY_REGION", "16 -1 1075883590 0", ["mem", "control", "small-control", "firmware-vcpu"]),
        ("io_uring_enter", "426 -1 0 0 0 0 0", ["rng", "disk", "image", "net", "vsock", "mem", "control", "small-control"]),
    ];

    public static TheoryData<string> PartCalls() => [.. ByNeed.Select(need => need.Name)];

    /// <summary>In a machine without disks nothing but the thread that would start theirs may do what disks do.</summary>
    [Theory]
    [MemberData(nameof(PartCalls))]
    public async Task What_only_some_parts_need_only_they_may(string name)
    {
        (_, string call, string[] allowed) = ByNeed.Single(n => string.Equals(n.Name, name, StringComparison.Ordinal));
        string[] kinds =
            ["rng", "disk", "image", "net", "vsock", "mem", "vcpu", "small-vcpu", "firmware-vcpu", "control", "small-control"];
        foreach (string kind in kinds)
        {
            (int status, string said) = await ProbeAsync([kind, .. call.Split(' ')]);
            Assert.True(status == 0 && said.StartsWith("errno", StringComparison.Ordinal), $"{kind}: status {status}: {said}");
            bool refused = said.StartsWith("errno 1\n", StringComparison.Ordinal);
            Assert.True(refused != allowed.Contains(kind, StringComparer.Ordinal), $"{kind}: {said}");
        }
    }

    public static TheoryData<string, string> ForbiddenCalls()
    {
        TheoryData<string, string> data = [];
        foreach (string kind in Kinds)
        {
            foreach ((string name, _, _) in Forbidden)
            {
                data.Add(kind, name);
            }
        }

        return data;
    }

    [Theory]
    [MemberData(nameof(ForbiddenCalls))]
    public async Task A_forbidden_call_is_refused_or_ends_the_process(string kind, string name)
    {
        (_, string call, bool deadly) = Forbidden.Single(f => string.Equals(f.Name, name, StringComparison.Ordinal));
        (int status, string said) = await ProbeAsync([kind, .. call.Split(' ')]);
        Assert.True(
            deadly ? status == Killed : status == 0 && said.StartsWith("errno 1\n", StringComparison.Ordinal), $"status {status}: {said}");
    }

    [Fact]
    public async Task Each_kind_of_thread_has_only_what_it_needs()
    {
        foreach ((string name, string call, string[] refused) in Narrower)
        {
            foreach (string kind in Kinds)
            {
                (int status, string said) = await ProbeAsync([kind, .. call.Split(' ')]);
                bool expected = refused.Contains(kind, StringComparer.Ordinal);
                Assert.True(
                    status == 0 && said.StartsWith("errno", StringComparison.Ordinal), $"{name} on {kind}: status {status}: {said}");
                Assert.True(said.StartsWith("errno 1\n", StringComparison.Ordinal) == expected, $"{name} on {kind}: {said}");
            }
        }
    }

    /// <summary>By ability and not by call: whatever way it is tried, no file is opened or unlinked, no socket made or connected.</summary>
    [Theory]
    [InlineData("control")]
    [InlineData("vcpu")]
    [InlineData("io")]
    public async Task Files_and_sockets_are_out_of_reach_by_every_way(string kind)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-able-").FullName, file = Path.Combine(folder, "file"),
            socket = Path.Combine(folder, "socket");
        try
        {
            await File.WriteAllTextAsync(file, "kept");
            using UnixListener listener = new(socket);
            (int status, string said) = await ProbeAsync([kind, "able", file, socket]);
            string[] tried = said.Split('\n', StringSplitOptions.RemoveEmptyEntries);
            Assert.True(status == 0 && tried.Length > 15, $"status {status}: {said}");
            Assert.DoesNotContain("DONE", said, StringComparison.Ordinal);
            Assert.Equal("kept", await File.ReadAllTextAsync(file));
            Assert.Equal(2, Directory.GetFileSystemEntries(folder).Length);
            Assert.Null(listener.Accept());

            (status, said) = await ProbeAsync([kind, "own-ring", file]);
            Assert.True(status == Killed, $"status {status}: {said}");
            Assert.True(File.Exists(file));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Theory]
    [InlineData("control")]
    [InlineData("vcpu")]
    [InlineData("io")]
    public async Task The_runtime_and_the_thread_can_do_their_work(string kind)
    {
        (int status, string said) = await ProbeAsync([kind, "work"]);
        Assert.True(status == 0 && said.StartsWith("done", StringComparison.Ordinal), $"status {status}: {said}");
    }

    /// <summary>libnbd, its handshake and its commands do with what every VM's process may do.</summary>
    [Fact]
    public async Task A_disk_of_an_NBD_server_works_behind_the_filters()
    {
        using NbdServer server = NbdServer.Kit("memory", "1M"); // one that ends by itself says why
        (int status, string said) = await ProbeAsync(["small-control", "nbd", server.Socket]);
        Assert.True(status == 0 && said.StartsWith("done", StringComparison.Ordinal), $"status {status}: {said}; {server.Fate}");
    }

    private static async Task<(int Status, string Said)> ProbeAsync(string[] arguments)
    {
        ProcessStartInfo start = new(Tree.Published("probe", "vmm-confinement-probe"), arguments)
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(30));
        try
        {
            Task<string> error = process.StandardError.ReadToEndAsync(limit.Token);
            string said = await process.StandardOutput.ReadToEndAsync(limit.Token);
            await process.WaitForExitAsync(limit.Token);
            return (process.ExitCode, said + await error);
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill();
            }
        }
    }
}
