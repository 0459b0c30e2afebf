using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.CommandLine;

/// <summary>Looks whether the files of a spec are there; the rest of a spec is checked without touching the host.</summary>
internal static class SpecFiles
{
    /// <summary>A problem for each missing file and each directory given for a file.</summary>
    internal static IReadOnlyList<SpecProblem> Check(VmSpec spec)
    {
        List<SpecProblem> problems = [];
        Check(problems, "boot.kernel", spec.Boot.Kernel);
        Check(problems, "boot.initrd", spec.Boot.Initrd);
        for (int i = 0; i < spec.Disks.Count; i++)
        {
            Check(problems, "disks[" + i + "].path", spec.Disks[i].IsRemote ? null : spec.Disks[i].Path);
        }

        for (int i = 0; i < spec.Shares.Count; i++)
        {
            CheckFolder(problems, "shares[" + i + "].path", spec.Shares[i].Path);
        }

        if (spec.Paging?.Swap is { } swap)
        {
            CheckFolder(problems, "memory.swap", swap);
        }

        return problems;
    }

    private static void CheckFolder(List<SpecProblem> problems, string field, string path)
    {
        if (BlockFile.Kind(path) is var kind and not PathKind.Directory)
        {
            problems.Add(new SpecProblem(field, path + (kind == PathKind.File ? " is no folder" : " does not exist")));
        }
    }

    private static void Check(List<SpecProblem> problems, string field, string? path)
    {
        if (!string.IsNullOrEmpty(path) && BlockFile.Kind(path) is var kind and not PathKind.File)
        {
            problems.Add(new SpecProblem(field, path + (kind == PathKind.Directory ? " is a directory" : " does not exist")));
        }
    }
}
