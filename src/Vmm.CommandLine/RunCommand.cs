using System.CommandLine;
using Vmm.Spec;

namespace Vmm.CommandLine;

/// <summary>
/// <c>vmmctl run</c>: its options and its help. vmmctl shows them and hands the words on, vmm-run carries them out: both read this one
/// definition.
/// </summary>
internal static class RunCommand
{
    /// <summary>The word behind vmmctl.</summary>
    internal const string Name = "run";

    private const string Help = """
        Start one VM in the foreground, with its console on this terminal. Ctrl-A x leaves, Ctrl-A h helps.

        Examples:
          vmmctl run --kernel vmlinuz --initrd initrd.img --cpus 4 --memory 2GiB
          vmmctl run --kernel vmlinuz --numa 2 --cpus 4 --memory 4GiB --disk root.raw --cmdline "console=ttyS0 root=/dev/vda"
          vmmctl run --kernel vmlinuz --disk data.raw,ro,queues=4,cache=buffered
          vmmctl run --kernel vmlinuz --disk root.raw --net tap=vmtap0,mac=52:54:00:12:34:56
          vmmctl run -f web1.yaml --memory 8GiB

        Exit code: 0 done, 1 failed, 2 bad usage; the guest's own when it writes to the debug-exit port.
        """;

    /// <summary>The command; <paramref name="action"/> gets the values of its options and answers with the exit code.</summary>
    internal static Command Create(Func<RunArguments, int> action)
    {
        Option<string?> file = new("--file", "-f") { Description = "VM spec (YAML); other options go over it", HelpName = "spec.yaml" };
        Option<string?> name = new("--name") { Description = "Name of the VM" };
        Option<string?> kernel =
            new("--kernel") { Description = "Linux bzImage, ELF64 vmlinux, or ELF64 with a PVH note", HelpName = "path" };
        Option<string?> initrd = new("--initrd") { Description = "Initial ramdisk", HelpName = "path" };
        Option<string?> cmdline = new("--cmdline")
        {
            Description = $"Kernel command line [default: {BootSpec.DefaultCmdline}]",
            HelpName = "text",
        };
        Option<int?> cpus = new("--cpus") { Description = "Number of vCPUs [default: 1]", HelpName = "N" };
        Option<string?> cpu = new("--cpu")
        {
            Description = "Processor the guest sees: host or x86-64-v1 to x86-64-v4, with [,+feature][,-feature] [default: host]",
            HelpName = "model",
        };
        Option<string?> memory = new("--memory") { Description = "RAM, e.g. 512MiB or 1.5GiB [default: 512MiB]", HelpName = "size" };
        Option<int?> numa = new("--numa") { Description = "Split CPUs and memory evenly over N virtual NUMA nodes", HelpName = "N" };
        Option<string[]> disk = new("--disk")
        {
            Description = "Raw disk: path" + SpecOption.Form("disks") + "; repeatable",
            HelpName = "disk",
        };
        Option<string[]> net = new("--net")
        {
            Description = "Network device: tap=NAME" + SpecOption.Form("nets") + "; repeatable",
            HelpName = "net",
        };
        Option<string?> transport =
            new("--virtio-transport") { Description = "pci or mmio for virtio devices [default: pci]", HelpName = "pci|mmio" };
        Option<bool> quiet = new("--quiet") { Description = "Print nothing of our own except errors" };
        Option<bool> noInput = new("--no-serial-input") { Description = "Do not read standard input" };
        Option<string?> restore = new("--restore")
        {
            Description = "Go on with a saved VM; its disks must be as they were",
            HelpName = "folder",
        };
        Option<string?> saveTo = new("--save-to")
        {
            Description = "When told to stop, save the VM into this new folder instead",
            HelpName = "folder",
        };
        Command run = new(Name, Help);
        Option[] all =
        [
            file, name, kernel, initrd, cmdline, cpus, cpu, memory, numa, disk, net, transport, restore, saveTo, quiet, noInput
        ];
        foreach (Option option in all)
        {
            run.Options.Add(option);
        }

        run.SetAction(parsed => action(new RunArguments
        {
            File = parsed.GetValue(file),
            Name = parsed.GetValue(name),
            Kernel = parsed.GetValue(kernel),
            Initrd = parsed.GetValue(initrd),
            Cmdline = parsed.GetValue(cmdline),
            Cpus = parsed.GetValue(cpus),
            Cpu = parsed.GetValue(cpu),
            Memory = parsed.GetValue(memory),
            Numa = parsed.GetValue(numa),
            Disks = parsed.GetValue(disk) ?? [],
            Nets = parsed.GetValue(net) ?? [],
            Transport = parsed.GetValue(transport),
            Quiet = parsed.GetValue(quiet),
            NoSerialInput = parsed.GetValue(noInput),
            Restore = parsed.GetValue(restore),
            SaveTo = parsed.GetValue(saveTo),
        }));
        return run;
    }
}
