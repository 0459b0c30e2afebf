using Vmm.CommandLine.Seeds;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.CommandLine;

/// <summary>The values of <c>vmmctl run</c>'s options; null means not given.</summary>
internal sealed record RunArguments
{
    public string? File { get; init; }

    /// <summary>A disk image that starts itself: the first disk.</summary>
    public string? Image { get; init; }

    public string? Name { get; init; }

    public string? Kernel { get; init; }

    public string? Initrd { get; init; }

    public string? Cmdline { get; init; }

    public int? Cpus { get; init; }

    public string? Cpu { get; init; }

    public string? Memory { get; init; }

    /// <summary>Most memory that is resident: a size or a percentage.</summary>
    public string? Resident { get; init; }

    public int? Numa { get; init; }

    public IReadOnlyList<string> Disks { get; init; } = [];

    public IReadOnlyList<string> Nets { get; init; } = [];

    /// <summary>Published ports of user-mode networking.</summary>
    public IReadOnlyList<string> Publish { get; init; } = [];

    /// <summary>Shared folders.</summary>
    public IReadOnlyList<string> Shares { get; init; } = [];

    public string? Transport { get; init; }

    public bool Quiet { get; init; }

    public bool NoSerialInput { get; init; }

    /// <summary>A reset of the guest ends the VM.</summary>
    public bool NoReboot { get; init; }

    /// <summary>Folder of a saved VM.</summary>
    public string? Restore { get; init; }

    /// <summary>The memory of the saved VM comes while it runs.</summary>
    public bool Lazy { get; init; }

    /// <summary>Folder into which the VM is saved when it is told to stop.</summary>
    public string? SaveTo { get; init; }

    /// <summary>What the guest gets for its first start.</summary>
    internal SeedWish Seed { get; init; } = new();

    /// <summary>True when an option says what the VM is.</summary>
    internal bool HasSpecOptions =>
        (File ?? Image ?? Name ?? Kernel ?? Initrd ?? Cmdline ?? Cpu ?? Memory ?? Resident ?? Transport) is not null
        || Cpus is not null || Numa is not null || Seed.IsGiven || Disks.Count + Nets.Count + Publish.Count + Shares.Count > 0;

    /// <summary>Makes the spec: the file first, options over it. Returns problems instead of throwing.</summary>
    public VmSpec? ToSpec(List<string> problems)
    {
        if ((File is null ? new VmSpec() : FromFile(File, problems)) is not { } spec)
        {
            return null;
        }

        spec = spec with
        {
            Name = Name ?? spec.Name,
            Cpus = Cpus ?? spec.Cpus,
            Cpu = Cpu is null ? spec.Cpu : CpuSpec.Parse(Cpu),
            OnReboot = NoReboot ? RebootPolicy.Stop : spec.OnReboot,
            Boot = spec.Boot with
            {
                Kernel = Kernel ?? spec.Boot.Kernel,
                Initrd = Initrd ?? spec.Boot.Initrd,
                Cmdline = Cmdline ?? spec.Boot.Cmdline
            },
        };
        if ((File ?? Kernel ?? Image) is null && Disks.Count == 0)
        {
            problems.Add("nothing to start: name a disk image, a bzImage or ELF kernel with --kernel, or a spec with -f");
        }

        spec = ApplyTexts(spec, problems);
        if (problems.Count == 0)
        {
            spec = ApplyNuma(spec, problems);
            Add(problems, SpecValidation.Validate(spec));
        }

        if (problems.Count == 0)
        {
            Add(problems, SpecFiles.Check(spec));
        }

        return problems.Count == 0 ? spec : null;
    }

    private static VmSpec? FromFile(string file, List<string> problems)
    {
        try
        {
            return SpecReader.ReadFile(file);
        }
        catch (SpecException e)
        {
            Add(problems, e.Problems);
            return null;
        }
    }

    private static void Add(List<string> problems, IReadOnlyList<SpecProblem> found)
    {
        for (int i = 0; i < found.Count; i++)
        {
            problems.Add(found[i].ToString());
        }
    }

    private VmSpec ApplyTexts(VmSpec spec, List<string> problems)
    {
        if (Memory is not null)
        {
            if (SpecText.TryParseSize(Memory, out ByteSize size))
            {
                spec = spec with { Memory = size };
            }
            else
            {
                problems.Add("--memory " + Memory + ": expected a size such as 512MiB or 1.5GiB, a whole number of bytes");
            }
        }

        if (Resident is not null)
        {
            spec = ApplyResident(spec, Resident, problems);
        }

        if (Transport is not null)
        {
            spec = ApplyTransport(spec, Transport, problems);
        }

        if (Nets.Count > 0)
        {
            spec = spec with { Nets = [.. spec.Nets, .. NetArguments.Read(Nets, problems)] };
        }

        if (Shares.Count > 0)
        {
            spec = spec with { Shares = Append(spec.Shares, "--share", Shares, SpecOption.TryParseShare, problems) };
        }

        if (Image is not null)
        {
            spec = spec with { Disks = [.. Append<DiskSpec>([], "image", [Image], SpecOption.TryParseDisk, problems), .. spec.Disks] };
        }

        if (Publish.Count > 0)
        {
            spec = spec with { Nets = NetArguments.WithPublished(spec.Nets, Publish) };
        }

        return Disks.Count == 0 ? spec : spec with { Disks = Append(spec.Disks, "--disk", Disks, SpecOption.TryParseDisk, problems) };
    }

    private static VmSpec ApplyResident(VmSpec spec, string text, List<string> problems)
    {
        if (MemoryPortion.TryParse(text, out MemoryPortion portion))
        {
            return spec with { Paging = (spec.Paging ?? new PagingSpec()) with { Resident = portion } };
        }

        problems.Add($"--resident {text}: expected a size such as 256MiB, or a percentage such as 25%");
        return spec;
    }

    private static VmSpec ApplyTransport(VmSpec spec, string text, List<string> problems)
    {
        if (Names.TryParse(text, out VirtioTransport transport))
        {
            return spec with { VirtioTransport = transport };
        }

        problems.Add($"--virtio-transport {text}: expected pci or mmio");
        return spec;
    }

    private delegate bool Parser<T>(string text, out T value, out string problem);

    /// <summary>What the spec has, and behind it what the options add.</summary>
    private static List<T> Append<T>(
        IReadOnlyList<T> given, string option, IReadOnlyList<string> texts, Parser<T> parse, List<string> problems)
    {
        List<T> all = [.. given];
        foreach (string text in texts)
        {
            if (parse(text, out T value, out string problem))
            {
                all.Add(value);
            }
            else
            {
                problems.Add($"{option} {text}: {problem}");
            }
        }

        return all;
    }

    private VmSpec ApplyNuma(VmSpec spec, List<string> problems)
    {
        if (Numa is not { } count)
        {
            return spec;
        }

        try
        {
            return NumaSplit.Apply(spec, count);
        }
        catch (SpecException e)
        {
            foreach (SpecProblem problem in e.Problems)
            {
                problems.Add("--" + problem);
            }

            return spec;
        }
    }
}
