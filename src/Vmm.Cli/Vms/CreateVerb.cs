using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Vmm.Cli.Remote;
using Vmm.CommandLine;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm create</c>: from a spec file, or with a name and options for what most VMs have.</summary>
internal sealed class CreateVerb
{
    private readonly Argument<string?> _name =
        new("name") { Description = "Name of a VM without a spec file", Arity = ArgumentArity.ZeroOrOne };
    private readonly Option<string?> _file = new("--file", "-f") { Description = "VM spec (YAML)", HelpName = "spec.yaml" };
    private readonly Option<string?> _image =
        new("--image") { Description = "One more disk of its own, made over this image of the daemon", HelpName = "name" };
    private readonly Option<string?> _size =
        new("--size") { Description = "Size of that disk; the image's by default", HelpName = "size" };
    private readonly Option<int?> _cpus = new("--cpus") { Description = "vCPUs, without a spec file", HelpName = "number" };
    private readonly Option<string?> _memory = new("--memory") { Description = "RAM, without a spec file", HelpName = "size" };
    private readonly Option<string?> _kernel = new("--kernel") { Description = "Kernel, without a spec file", HelpName = "path" };
    private readonly Option<string?> _initrd = new("--initrd") { Description = "Initial ramdisk, without a spec file", HelpName = "path" };
    private readonly Option<string?> _cmdline =
        new("--cmdline") { Description = "Kernel command line, without a spec file", HelpName = "text" };
    private readonly Option<string[]> _nets = NetArguments.Nets(), _publish = NetArguments.Publish();
    private readonly Option<string[]> _network =
        new("--network") { Description = "One more network device, on this private network of the daemon; repeatable", HelpName = "name" };
    private readonly SeedVerb _seed = new();
    private readonly Option<bool> _start = new("--start") { Description = "Start it, too" };

    internal static void AddTo(Noun vm)
    {
        CreateVerb verb = new();
        Symbol[] symbols =
        [
            verb._name, verb._file, verb._image, verb._size, verb._cpus, verb._memory, verb._kernel, verb._initrd, verb._cmdline,
            verb._network, verb._nets, verb._publish, .. verb._seed.Options, verb._start,
        ];
        vm.Add("create", "Create a VM from a spec file, or from options; the same again changes nothing", symbols, verb.RunAsync);
    }

    private async Task<int> RunAsync(DaemonSession session, ParseResult parsed, CancellationToken cancellation)
    {
        DiskSpec? disk = Disk(parsed);
        VmSeedWish? seed = _seed.Read(parsed);
        string yaml, folder = Environment.CurrentDirectory;
        if (parsed.GetValue(_file) is { } file)
        {
            if (parsed.GetValue(_name) is not null || Settings(parsed).Any())
            {
                throw new UsageException("vm create: a spec file says the name, CPUs, memory, networks and what boots; beside -f there "
                    + "are --image, --size, --network, what is for the first start (--ssh-key, …) and --start");
            }

            yaml = await ReadAsync(file, cancellation).ConfigureAwait(false);
            folder = Path.GetDirectoryName(Path.GetFullPath(file))!;
            yaml = disk is null ? yaml : Changed("disk", "'- image: NAME' into its disks", () => SpecEdit.Add(yaml, folder, disk));
            foreach (string name in parsed.GetValue(_network) ?? [])
            {
                string before = yaml;
                yaml = Changed("network", $"'- network: {name}' into its nets",
                    () => SpecEdit.Add(before, folder, new NetSpec { Network = name }));
            }
        }
        else
        {
            yaml = Write(parsed, parsed.GetValue(_name)
                ?? throw new UsageException("vm create: name a VM, or a spec file with -f"), disk);
        }

        return await VmVerbs.CreateAsync(session, yaml, folder, seed, parsed.GetValue(_start), cancellation).ConfigureAwait(false);
    }

    private IEnumerable<Option> Settings(ParseResult parsed) => new Option[] { _cpus, _memory, _kernel, _initrd, _cmdline, _nets, _publish }
        .Where(option => parsed.GetResult(option) is System.CommandLine.Parsing.OptionResult { Implicit: false });

    private DiskSpec? Disk(ParseResult parsed)
    {
        string? image = parsed.GetValue(_image), text = parsed.GetValue(_size);
        ByteSize size = default;
        return image is null && text is not null ? throw new UsageException("--size is that of a disk over an image: name it with --image")
            : text is not null && !SpecText.TryParseSize(text, out size)
                ? throw new UsageException($"--size {text}: expected a size such as 20GiB, a whole number of bytes")
            : image is null ? null
            : new DiskSpec { Image = image, Size = text is null ? null : size };
    }

    private static string Changed(string what, string instead, Func<string?> edit)
    {
        try
        {
            return edit() ?? throw new UsageException($"the spec is written so that no {what} can be added: put {instead}");
        }
        catch (SpecException cause)
        {
            throw new UsageException(cause.Message);
        }
    }

    // Every text as JSON has it, which YAML takes.
    private string Write(ParseResult parsed, string name, DiskSpec? disk)
    {
        StringBuilder yaml = new();
        yaml.Append("name: ").Append(Quoted(name)).Append('\n');
        if (parsed.GetValue(_cpus) is { } cpus)
        {
            yaml.Append("cpus: ").Append(cpus.ToString(CultureInfo.InvariantCulture)).Append('\n');
        }

        if (parsed.GetValue(_memory) is { } memory)
        {
            yaml.Append("memory: ").Append(Quoted(memory)).Append('\n');
        }

        (string Field, string? Value)[] boot =
            [("kernel", parsed.GetValue(_kernel)), ("initrd", parsed.GetValue(_initrd)), ("cmdline", parsed.GetValue(_cmdline))];
        foreach ((string field, string? value) in boot.Where(b => b.Value is not null))
        {
            yaml.Append(yaml.ToString().Contains("\nboot:", StringComparison.Ordinal) ? "" : "boot:\n")
                .Append("  ").Append(field).Append(": ").Append(Quoted(value!)).Append('\n');
        }

        foreach (string net in Nets(parsed).Select(SpecEdit.Item))
        {
            yaml.Append(yaml.ToString().Contains("\nnets:", StringComparison.Ordinal) ? "" : "nets:\n")
                .Append("  - ").Append(net).Append('\n');
        }

        // A distribution's image has the agent, or can; the port is there for it.
        return disk is null ? yaml.ToString()
            : yaml.Append("guestAgent: true\ndisks:\n  - ").Append(SpecEdit.Item(disk)).Append('\n').ToString();
    }

    private IReadOnlyList<NetSpec> Nets(ParseResult parsed)
    {
        List<string> problems = [];
        IReadOnlyList<NetSpec> nets = NetArguments.WithPublished(
            NetArguments.Read(parsed.GetValue(_nets) ?? [], problems), parsed.GetValue(_publish) ?? []);
        nets = [.. nets, .. (parsed.GetValue(_network) ?? []).Select(name => new NetSpec { Network = name })];
        return problems.Count == 0 ? nets : throw new UsageException(string.Join('\n', problems));
    }

    private static string Quoted(string text) => $"\"{JsonEncodedText.Encode(text).Value}\"";

    private static async Task<string> ReadAsync(string file, CancellationToken cancellation)
    {
        try
        {
            return await File.ReadAllTextAsync(file, cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new UsageException($"{file}: does not exist");
        }
    }
}
