using System.Diagnostics;
using System.Globalization;
using Vmm.HostNet.Shares;
using Vmm.Interop;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Shared folders of whole machines: fs.elf speaks FUSE to the host's virtiofsd.</summary>
[Trait("Tier", "kvm")]
public sealed class ShareTests : IDisposable
{
    private const int Block = 65536, Blocks = 16;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-share-test-").FullName;

    private string Share => Path.Combine(_folder, "share");

    public ShareTests() => Directory.CreateDirectory(Share);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [VirtiofsdFact(NeedsRoot = true)]
    public void What_the_guest_writes_is_in_the_folder()
    {
        foreach (VirtioTransport transport in Enum.GetValues<VirtioTransport>())
        {
            string said = Run(Spec(readOnly: false, $"file={transport}") with { VirtioTransport = transport });
            Assert.Contains("FS tag=shared queues=1", said, StringComparison.Ordinal);
            Assert.Contains("RESULT fs verify=ok", said, StringComparison.Ordinal);
            Assert.Equal(Pattern(), File.ReadAllBytes(Path.Combine(Share, transport.ToString())));
        }
    }

    [VirtiofsdFact(NeedsRoot = true)]
    public void What_is_read_only_is_read_and_stays_as_it_is()
    {
        File.WriteAllBytes(Path.Combine(Share, "data"), Pattern());
        Assert.Contains("RESULT fs create=30", Run(Spec(readOnly: true, "ro=1")), StringComparison.Ordinal); // EROFS
        Assert.Equal([Path.Combine(Share, "data")], Directory.GetFileSystemEntries(Share));
    }

    [VirtiofsdFact(NeedsRoot = true)]
    public void When_virtiofsd_is_killed_the_guest_is_answered_and_mounts_the_next_one()
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Spec(readOnly: false, "loop=1"), terminal);
        int[] first = Programs();
        Assert.NotEmpty(first);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READING");
        foreach (int process in first)
        {
            using Process found = Process.GetProcessById(process);
            found.Kill();
        }

        Assert.True(run.Join(90_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
        Assert.Contains("LOST errno=107", terminal.Said, StringComparison.Ordinal);
        Assert.Contains("BACK", terminal.Said, StringComparison.Ordinal);
        Assert.Empty(Programs().Intersect(first));
    }

    [VirtiofsdFact(NeedsRoot = true)]
    public void It_ends_with_its_machine()
    {
        int[] of;
        using (Terminal terminal = new())
        using (VirtualMachine.Create(Spec(readOnly: false, ""), terminal))
        {
            of = Programs();
            Assert.NotEmpty(of);
        }

        Assert.True(SpinWait.SpinUntil(() => !Programs().Intersect(of).Any(), 20_000), "virtiofsd outlives its machine");
    }

    [VirtiofsdFact(NeedsRoot = true)]
    public void One_that_hangs_is_killed_by_the_next_who_starts_it()
    {
        VirtiofsdOptions options = new() { Folder = Share, Mark = _folder };
        Virtiofsd before = new(options); // of a vmmd that is gone: not disposed
        using FileDescriptorHandle kept = before.Start();
        int[] first = Programs();
        Assert.NotEmpty(first);
        foreach (int process in first)
        {
            using Process stopped = Process.Start("kill", ["-STOP", process.ToString(CultureInfo.InvariantCulture)]);
            stopped.WaitForExit();
        }

        using (Virtiofsd other = new(options with { Mark = _folder + "2" }))
        {
            using FileDescriptorHandle another = other.Start();
            Assert.Equal(first.Order(), Programs().Intersect(first).Order()); // of another folder, or another VM
        }

        using Virtiofsd next = new(options);
        using FileDescriptorHandle socket = next.Start();
        Assert.True(SpinWait.SpinUntil(() => !Programs().Intersect(first).Any(), 20_000), "it is still there");
        Assert.NotEmpty(Programs());
    }

    [VirtiofsdFact(NeedsRoot = true)]
    public async Task It_pauses_and_goes_on_and_is_not_saved()
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Spec(readOnly: false, "loop=1"), terminal);
        int[] of = Programs();
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READING");
        StateException refused = await Assert.ThrowsAsync<StateException>(
            () => MachineSave.SaveAsync(machine, Path.Combine(_folder, "saved"), TimeSpan.FromSeconds(60), goOn: true));
        Assert.Contains("a VM with shares cannot be saved", refused.Message, StringComparison.Ordinal);
        for (int i = 0; i < 5; i++)
        {
            machine.Pause();
            machine.Resume();
        }

        Assert.Equal(of.Order(), Programs().Intersect(of).Order()); // the same one, with what it knows
        Assert.DoesNotContain("LOST", terminal.Said, StringComparison.Ordinal);
        foreach (int process in of)
        {
            using Process found = Process.GetProcessById(process);
            found.Kill();
        }

        Assert.True(run.Join(90_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    [Fact]
    public void A_missing_program_is_named_with_its_package()
    {
        HostShareException missing = Assert.Throws<HostShareException>(
            () => new Virtiofsd(new VirtiofsdOptions { Folder = Share, Program = "/nonexistent" }).Start());
        Assert.Contains("/nonexistent", missing.Message, StringComparison.Ordinal);
        Assert.Contains("apt install virtiofsd", VirtiofsdProgram.Missing, StringComparison.Ordinal);
    }

    [Fact]
    public void What_a_program_says_that_does_not_start_is_told()
    {
        string program = Path.Combine(AppContext.BaseDirectory, Path.GetFileName(_folder)); // for it the folder hides /tmp
        File.WriteAllText(program, "#!/bin/sh\n[ \"$1\" = --version ] && exec echo virtiofsd 1.0\necho it rains >&2\nexit 3\n");
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        HostShareException refused = Assert.Throws<HostShareException>(
            () => new Virtiofsd(new VirtiofsdOptions { Folder = Share, Program = program }).Start());
        Assert.Equal($"shared folder {Share}: virtiofsd does not start: it rains", refused.Message);
        Assert.StartsWith(
            $"shared folder {Share}x: ",
            Assert.Throws<HostShareException>(
                () => new Virtiofsd(new VirtiofsdOptions { Folder = Share + "x", Program = program }).Start()).Message,
            StringComparison.Ordinal);
        File.Delete(program);
    }

    private static byte[] Pattern() =>
        [.. Enumerable.Range(0, Block * Blocks).Select(i => (byte)((i * 31) + ((i >> 8) * 7) + 5))];

    private static string Run(VmSpec spec)
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.True(run.Join(90_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
        return terminal.Said;
    }

    private VmSpec Spec(bool readOnly, string cmdline) => GuestSpec("fs") with
    {
        Boot = GuestSpec("fs").Boot with { Cmdline = cmdline },
        Shares = [new ShareSpec { Path = Share, Tag = "shared", ReadOnly = readOnly }],
    };

    /// <summary>The virtiofsd processes that see this test's folder.</summary>
    private int[] Programs() =>
        [.. Directory.GetDirectories("/proc").Select(Path.GetFileName)
            .Where(name => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out _) && Sees(name!))
            .Select(name => int.Parse(name!, CultureInfo.InvariantCulture))];

    private bool Sees(string process)
    {
        try
        {
            return File.ReadAllText($"/proc/{process}/cmdline").Contains("virtiofsd\0--fd=3", StringComparison.Ordinal)
                && File.ReadLines($"/proc/{process}/mountinfo").Any(
                    line => line.Split(' ') is { Length: > 4 } fields && fields[3].EndsWith(Share[4..], StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return false; // it ended
        }
        catch (UnauthorizedAccessException)
        {
            return false;
        }
    }
}
