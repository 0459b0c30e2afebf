using System.CommandLine;
using Vmm.Cli.Generate;
using Vmm.Cli.Nouns;
using Vmm.Spec;

namespace Vmm.Cli;

/// <summary>The command tree: names, options, help. What the commands do is in <see cref="Application"/>.</summary>
internal static class CommandTree
{
    private const string RunHelp = """
        Start one VM in the foreground, with its console on this terminal. Ctrl-A x leaves, Ctrl-A h helps.

        Examples:
          vmmctl run --kernel vmlinuz --initrd initrd.img --cpus 4 --memory 2GiB
          vmmctl run --kernel vmlinuz --numa 2 --cpus 4 --memory 4GiB --disk root.raw --cmdline "console=ttyS0 root=/dev/vda"
          vmmctl run --kernel vmlinuz --disk data.raw,ro,queues=4,cache=buffered
          vmmctl run --kernel vmlinuz --disk root.raw --net tap=vmtap0,mac=52:54:00:12:34:56
          vmmctl run -f web1.yaml --memory 8GiB

        Exit code: 0 done, 1 failed, 2 bad usage; the guest's own when it writes to the debug-exit port.
        """;

    internal static RootCommand Create(Application application)
    {
        RootCommand root = new("vmmctl: virtual machines on KVM");
        GlobalOptions options = new();
        options.AddTo(root);
        root.Subcommands.Add(Run(application));
        root.Subcommands.Add(Vms.VmCommands.Create(options, application));
        root.Subcommands.Add(HostCommands.Create(options, application));
        root.Subcommands.Add(DiskCommands.Create(options));
        root.Subcommands.Add(JobCommands.Create(options));
        root.Subcommands.Add(TokenCommands.Create(options));
        root.Subcommands.Add(EventView.Create(options));
        root.Subcommands.Add(Spec(application));
        Command version = new("version", "Print the version");
        version.SetAction(_ => application.Version());
        root.Subcommands.Add(version);
        foreach (Command local in root.Subcommands.Where(command => !AsksDaemon(command.Name)))
        {
            options.RefuseOn(local);
        }

        root.Subcommands.Add(GenerateCommands.Generate(root));
        root.Subcommands.Add(GenerateCommands.Complete(options));
        return root;
    }

    /// <summary>False for the commands that do their work here; the options that name a daemon are refused there.</summary>
    internal static bool AsksDaemon(string command) => command is not ("run" or "spec" or "version");

    private static Command Run(Application application)
    {
        Option<string?> file = new("--file", "-f") { Description = "VM spec (YAML); other options go over it", HelpName = "spec.yaml" };
        Option<string?> name = new("--name") { Description = "Name of the VM" };
        Option<string?> kernel = new("--kernel") { Description = "Linux bzImage, ELF64 vmlinux, or ELF64 with a PVH note", HelpName = "path" };
        Option<string?> initrd = new("--initrd") { Description = "Initial ramdisk", HelpName = "path" };
        Option<string?> cmdline = new("--cmdline")
        {
            Description = $"Kernel command line [default: {BootSpec.DefaultCmdline}]",
            HelpName = "text",
        };
        Option<int?> cpus = new("--cpus") { Description = "Number of vCPUs [default: 1]", HelpName = "N" };
        Option<string?> cpu = new("--cpu") { Description = "Processor the guest sees: host or x86-64-v1 to x86-64-v4, with [,+feature][,-feature] [default: host]", HelpName = "model" };
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
        Option<string?> transport = new("--virtio-transport") { Description = "pci or mmio for virtio devices [default: pci]", HelpName = "pci|mmio" };
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
        Command run = new("run", RunHelp);
        Option[] all = [file, name, kernel, initrd, cmdline, cpus, cpu, memory, numa, disk, net, transport, restore, saveTo, quiet, noInput];
        foreach (Option option in all)
        {
            run.Options.Add(option);
        }

        run.SetAction(parsed => application.Run(new RunArguments
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

    private static Command Spec(Application application)
    {
        Argument<string> file = new("file") { Description = "The spec file", HelpName = "file" };
        Command validate = new("validate", "Check a VM spec and list every problem with its line") { file };
        validate.SetAction(parsed => application.ValidateSpec(parsed.GetValue(file)!));
        Command schema = new("schema", "Print the JSON schema of a VM spec");
        schema.SetAction(_ => application.Schema());
        return new Command("spec", "VM spec files") { validate, schema };
    }
}
