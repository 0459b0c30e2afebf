using Vmm.Interop.Kvm;
using Vmm.CommandLine;
using Vmm.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Run.Tests;

[Collection("environment")]
public sealed class RunApplicationTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl").FullName;
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();
    private VmSpec? _ran;
    private RunResult _result = new(ExitReason.PowerOff);
    private Exception? _throws;

    public RunApplicationTests()
    {
        File.WriteAllText(PathOf("vmlinuz"), "k");
        File.WriteAllText(PathOf("disk.raw"), "d");
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string PathOf(string name) => Path.Combine(_folder, name);

    private int Execute(params string[] args) => new RunApplication(
        (request, _, note, _) =>
        {
            _ran = request.Spec;
            note?.Invoke("a note");
            return _throws is null ? _result : throw _throws;
        },
        _out,
        _error).Execute(args);

    private int Run(params string[] args) => Execute(["run", "--no-serial-input", "--kernel", PathOf("vmlinuz"), .. args]);

    [Fact]
    public void Options_become_the_spec()
    {
        Assert.Equal(0, Run("--cpus", "3", "--memory", "1GiB", "--numa", "2", "--name", "n", "--cmdline", "quiet", "--virtio-transport",
            "mmio", "--disk",
            PathOf("disk.raw") + ",ro,queues=4,queue-size=64,block-size=4096,serial=s,cache=buffered,transport=pci,vnode=1"));
        Assert.Equal(
            ("n", 3, 1UL << 30, "quiet", VirtioTransport.Mmio),
            (_ran!.Name, _ran.Cpus, _ran.Memory, _ran.Boot.Cmdline, _ran.VirtioTransport));
        Assert.Equal([2, 1], _ran.Numa!.Vnodes.Select(v => v.Cpus.Count));
        Assert.Equal(
            new DiskSpec
            {
                Path = PathOf("disk.raw"),
                ReadOnly = true,
                Queues = 4,
                QueueSize = 64,
                LogicalBlockSize = 4096,
                Serial = "s",
                Cache = DiskCache.Buffered,
                Transport = VirtioTransport.Pci,
                Vnode = 1
            },
            Assert.Single(_ran.Disks));
    }

    [Fact]
    public void Without_options_the_defaults_hold_and_disks_repeat()
    {
        File.WriteAllText(PathOf("b.raw"), "b");
        Assert.Equal(0, Run("--disk", PathOf("disk.raw"), "--disk", PathOf("b.raw")));
        Assert.Equal((1, 512UL << 20, "console=ttyS0 panic=-1", 2), (_ran!.Cpus, _ran.Memory, _ran.Boot.Cmdline, _ran.Disks.Count));
    }

    [Fact]
    public void Options_go_over_the_spec_file()
    {
        File.WriteAllText(PathOf("s.yaml"), "cpus: 2\nboot: {kernel: vmlinuz}\n");
        Assert.Equal(0, Execute("run", "--no-serial-input", "-f", PathOf("s.yaml"), "--memory", "64MiB"));
        Assert.Equal((2, 64UL << 20, PathOf("vmlinuz")), (_ran!.Cpus, _ran.Memory, _ran.Boot.Kernel));
    }

    [Fact]
    public void A_size_may_have_a_fraction_that_is_a_whole_number_of_bytes()
    {
        File.WriteAllText(PathOf("s.yaml"), "memory: 64.5MiB\nboot: {kernel: vmlinuz}\n");
        Assert.Equal(0, Execute("run", "--no-serial-input", "-f", PathOf("s.yaml")));
        Assert.Equal(129UL << 19, _ran!.Memory.Bytes);
        Assert.Equal(0, Execute("run", "--no-serial-input", "-f", PathOf("s.yaml"), "--memory", "1.5GiB"));
        Assert.Equal(3UL << 29, _ran!.Memory.Bytes);
    }

    [Theory]
    [InlineData("--cpus 0", "cpus: 0, expected 1 to 1024")]
    [InlineData("--memory 1.3GiB", "--memory 1.3GiB: expected a size such as 512MiB or 1.5GiB, a whole number of bytes")]
    [InlineData("--cpus many", "many")]
    [InlineData("--memory 5x", "--memory 5x: expected a size")]
    [InlineData("--memory 1MiB", "memory: 1MiB, expected")]
    [InlineData("--numa 0", "--numa: 0 vnodes")]
    [InlineData("--initrd no/initrd", "boot.initrd: no/initrd does not exist")]
    [InlineData("--disk no/disk", "disks[0].path: no/disk does not exist")]
    [InlineData("--disk a,queue=2", "did you mean queues?")]
    [InlineData("--disk a,queues=x", "queues=x: expected a number")]
    [InlineData("--disk a,cache=no", "expected direct or buffered")]
    [InlineData("--disk a,block-size=1024", "disks[0].logicalBlockSize: 1024, expected 512 or 4096")]
    [InlineData("--disk a,queue-size=3", "disks[0].queueSize: 3, expected a power of two")]
    [InlineData("--disk ,ro", "the path comes first")]
    [InlineData("--virtio-transport usb", "expected pci or mmio")]
    [InlineData("--name a/b", "is not a name")]
    [InlineData("--nonsense", "--nonsense")]
    [InlineData("-f no/spec.yaml", "no/spec.yaml: does not exist")]
    public void Wrong_arguments_are_bad_usage_and_say_which(string args, string message)
    {
        Assert.Equal(ExitCodes.Usage, Run(args.Split(' ')));
        Assert.Null(_ran);
        Assert.Contains(message, _error.ToString(), StringComparison.Ordinal);
        Assert.All(_error.ToString().TrimEnd().Split('\n'), line => Assert.StartsWith("vmmctl: ", line, StringComparison.Ordinal));
    }

    [Fact]
    public void A_run_says_that_it_keeps_no_cpu_limits()
    {
        File.WriteAllText(PathOf("s.yaml"), "name: s\ncpuQuota: 50%\nboot: {kernel: vmlinuz}\n");
        Assert.Equal(0, Execute("run", "--no-serial-input", "-f", PathOf("s.yaml")));
        Assert.Contains("vmmctl: s: cpuQuota and cpuWeight are for VMs of a vmmd", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Run());
        Assert.Single(_error.ToString().Split("cpuQuota"), text => text.StartsWith(" and cpuWeight", StringComparison.Ordinal));
    }

    [Fact]
    public void A_reboot_ends_the_VM_when_that_is_asked_for()
    {
        Assert.Equal(0, Run());
        Assert.Equal(RebootPolicy.Restart, _ran!.OnReboot);
        Assert.Equal(0, Run("--no-reboot"));
        Assert.Equal(RebootPolicy.Stop, _ran!.OnReboot);
    }

    [Fact]
    public void A_machine_has_an_id_of_its_own_that_stays_with_its_first_disk()
    {
        File.WriteAllBytes(PathOf("one.raw"), new byte[4096]);
        File.WriteAllBytes(PathOf("two.raw"), new byte[4096]);
        string first = Id("--disk", PathOf("one.raw")), again = Id("--disk", PathOf("one.raw")), other = Id("--disk", PathOf("two.raw"));
        Assert.Equal(first, again);
        Assert.NotEqual(first, other);
        Assert.NotEqual(first, Id("--disk", PathOf("one.raw"), "--name", "other"));
        Assert.NotEqual(Id(), Id()); // nothing of such a machine lasts
        Assert.Equal('8', first[14]); // RFC 9562, version 8

        string Id(params string[] args)
        {
            Assert.Equal(0, Run(args));
            return Guid.ParseExact(_ran!.Smbios!.Uuid!, "D").ToString("D");
        }
    }

    [Fact]
    public void Missing_kernel_is_bad_usage()
    {
        Assert.Equal(2, Execute("run"));
        Assert.Contains("nothing to start", _error.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ExitReason.PowerOff, 0, 0)]
    [InlineData(ExitReason.Reset, 0, 0)]
    [InlineData(ExitReason.Stopped, 0, 0)]
    [InlineData(ExitReason.DebugExit, 37, 37)]
    [InlineData(ExitReason.TripleFault, 0, 1)]
    [InlineData(ExitReason.Failed, 0, 1)]
    public void The_end_of_the_run_becomes_the_exit_code(ExitReason outcome, int code, int exit)
    {
        _result = new RunResult(outcome, code);
        Assert.Equal(exit, Run());
    }

    [Fact]
    public void Errors_of_the_machine_are_one_line_and_exit_code_1()
    {
        _throws = new KvmUnavailableException(KvmUnavailableReason.NoPermission, "/dev/kvm: permission denied: join the group kvm");
        Assert.Equal(1, Run("--quiet"));
        Assert.Equal("vmmctl: /dev/kvm: permission denied: join the group kvm\n", _error.ToString());
        _throws = new BootException("k", "magic", 0, "bad");
        Assert.Equal(1, Run("--quiet"));
        Assert.EndsWith("vmmctl: k: magic (offset 0x0): bad\n", _error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_crash_is_told_with_the_state_of_the_vcpus()
    {
        _result = new RunResult(ExitReason.TripleFault, Message: "vCPU 0 at RIP 0x1", Report: ["vCPU 0, which crashed:", "  code: ud2"]);
        Assert.Equal(1, Run("--quiet"));
        Assert.Equal(
            "vmmctl: vm: the guest crashed its CPU (triple fault): vCPU 0 at RIP 0x1\n  vCPU 0, which crashed:\n    code: ud2\n",
            _error.ToString());
    }

    [Fact]
    public void Quiet_drops_notes_but_not_errors()
    {
        _result = new RunResult(ExitReason.Failed, Message: "broken");
        Assert.Equal(1, Run("--quiet"));
        Assert.Equal("vmmctl: vm: broken\n", _error.ToString());
    }
}
