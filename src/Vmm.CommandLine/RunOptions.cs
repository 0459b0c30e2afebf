using System.CommandLine;
using Vmm.CommandLine.Seeds;
using Vmm.Spec;

namespace Vmm.CommandLine;

/// <summary>The options of <c>vmmctl run</c>, and how their values are read.</summary>
internal sealed class RunOptions
{
    private readonly Option<string?> _file =
        new("--file", "-f") { Description = "VM spec (YAML); other options go over it", HelpName = "spec.yaml" };

    private readonly Argument<string?> _image = CreateImage();

    private readonly Option<string?> _name = new("--name") { Description = "Name of the VM" };

    private readonly Option<string?> _kernel =
        new("--kernel") { Description = "Linux bzImage, ELF64 vmlinux, or ELF64 with a PVH note", HelpName = "path" };

    private readonly Option<string?> _initrd = new("--initrd") { Description = "Initial ramdisk", HelpName = "path" };

    private readonly Option<string?> _cmdline =
        new("--cmdline") { Description = $"Kernel command line [default: {BootSpec.DefaultCmdline}]", HelpName = "text" };

    private readonly Option<int?> _cpus = new("--cpus") { Description = "Number of vCPUs [default: 1]", HelpName = "N" };

    private readonly Option<string?> _cpu = new("--cpu")
    {
        Description = "Processor the guest sees: host or x86-64-v1 to x86-64-v4, with [,+feature][,-feature] [default: host]",
        HelpName = "model",
    };

    private readonly Option<string?> _memory =
        new("--memory") { Description = "RAM, e.g. 512MiB or 1.5GiB [default: 512MiB]", HelpName = "size" };

    private readonly Option<string?> _resident = new("--resident")
    {
        Description = "Most RAM that is resident on the host, e.g. 256MiB or 25%; the rest is swapped out. Needs /dev/userfaultfd",
        HelpName = "size|percent",
    };

    private readonly Option<int?> _numa =
        new("--numa") { Description = "Split CPUs and memory evenly over N virtual NUMA nodes", HelpName = "N" };

    private readonly Option<string[]> _disks =
        new("--disk") { Description = "Raw disk: path" + SpecOption.Form("disks") + "; repeatable", HelpName = "disk" };

    private readonly Option<string[]> _nets = NetArguments.Nets(), _publish = NetArguments.Publish();

    private readonly Option<string[]> _shares = new("--share")
    {
        Description = "Folder of the host that the guest mounts (mount -t virtiofs TAG FOLDER): path" + SpecOption.Form("shares")
            + "; needs the program virtiofsd; repeatable",
        HelpName = "folder"
    };

    private readonly Option<string?> _transport =
        new("--virtio-transport") { Description = "pci or mmio for virtio devices [default: pci]", HelpName = "pci|mmio" };

    private readonly Option<string?> _restore =
        new("--restore") { Description = "Go on with a saved VM; its disks must be as they were", HelpName = "folder" };

    private readonly Option<bool> _lazy = new("--lazy")
    {
        Description = "With --restore: run it at once; its memory comes from the folder when it is used, and the rest by and by",
    };

    private readonly Option<string?> _saveTo =
        new("--save-to") { Description = "When told to stop, save the VM into this new folder instead", HelpName = "folder" };

    private readonly SeedOptions _seed = new();

    private readonly Option<bool> _noReboot =
        new("--no-reboot") { Description = "A reboot of the guest ends the VM; one that firmware started goes on otherwise" };

    private readonly Option<bool> _quiet = new("--quiet") { Description = "Print nothing of our own except errors" };

    private readonly Option<bool> _noSerialInput = new("--no-serial-input") { Description = "Do not read standard input" };

    /// <summary>The word that is no option.</summary>
    internal Argument<string?> Image => _image;

    /// <summary>In the order in which the help lists them.</summary>
    internal IReadOnlyList<Option> All =>
    [
        _file, _name, _kernel, _initrd, _cmdline, _cpus, _cpu, _memory, _resident, _numa, _disks, _nets, _publish, _shares, _transport,
        .. _seed.All, _restore, _lazy, _saveTo, _noReboot, _quiet, _noSerialInput
    ];

    /// <summary>What a command line gives them.</summary>
    internal RunArguments Read(ParseResult parsed) => new()
    {
        Image = parsed.GetValue(_image),
        File = parsed.GetValue(_file),
        Name = parsed.GetValue(_name),
        Kernel = parsed.GetValue(_kernel),
        Initrd = parsed.GetValue(_initrd),
        Cmdline = parsed.GetValue(_cmdline),
        Cpus = parsed.GetValue(_cpus),
        Cpu = parsed.GetValue(_cpu),
        Memory = parsed.GetValue(_memory),
        Resident = parsed.GetValue(_resident),
        Numa = parsed.GetValue(_numa),
        Disks = parsed.GetValue(_disks) ?? [],
        Nets = parsed.GetValue(_nets) ?? [],
        Publish = parsed.GetValue(_publish) ?? [],
        Shares = parsed.GetValue(_shares) ?? [],
        Transport = parsed.GetValue(_transport),
        NoReboot = parsed.GetValue(_noReboot),
        Quiet = parsed.GetValue(_quiet),
        NoSerialInput = parsed.GetValue(_noSerialInput),
        Restore = parsed.GetValue(_restore),
        Lazy = parsed.GetValue(_lazy),
        SaveTo = parsed.GetValue(_saveTo),
        Seed = _seed.Read(parsed),
    };

    private static Argument<string?> CreateImage()
    {
        Argument<string?> image = new("image")
        {
            Description = "Disk that starts itself, as --disk has it: UEFI firmware (the package ovmf) boots it",
            Arity = ArgumentArity.ZeroOrOne,
        };
        image.Validators.Add(result =>
        {
            if (result.Tokens is [{ Value: ['-', ..] word }, ..]) // the parser takes any unknown option for it
            {
                result.AddError($"run: {word}: no such option");
            }
        });
        return image;
    }
}
