namespace Vmm.Spec;

/// <summary>The rules of a disk or network device that is not in a spec (yet).</summary>
public static class DeviceValidation
{
    // Which vnodes there are is the VM's affair.
    private static readonly NumaSpec s_anyVnodes = new() { Auto = true };

    /// <summary>Problems of a disk; their paths are its fields.</summary>
    public static IReadOnlyList<SpecProblem> Check(DiskSpec disk) => Of(new VmSpec { Numa = s_anyVnodes, Disks = [disk] }, "disks[0].");

    /// <summary>Problems of a network device; their paths are its fields.</summary>
    public static IReadOnlyList<SpecProblem> Check(NetSpec net) => Of(new VmSpec { Numa = s_anyVnodes, Nets = [net] }, "nets[0].");

    private static List<SpecProblem> Of(VmSpec spec, string prefix)
    {
        List<SpecProblem> problems = [];
        foreach (SpecProblem problem in SpecValidation.Validate(spec))
        {
            if (problem.Path.StartsWith(prefix, StringComparison.Ordinal))
            {
                problems.Add(problem with { Path = problem.Path[prefix.Length..] });
            }
        }

        return problems;
    }
}
