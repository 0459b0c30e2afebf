using Vmm.Daemon.Storage;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Looks whether what a spec names is where a spec may name it, and there. The daemon has no current folder that a client could mean; and
/// of files outside the storage folders nothing is told, not even whether they are there.
/// </summary>
internal static class SpecFileCheck
{
    /// <summary>Reads a spec.</summary>
    /// <param name="yaml">Its text.</param>
    /// <param name="folder">What relative paths are relative to; empty when there is none.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It is not sound.</exception>
    internal static VmSpec Read(string yaml, string folder, CancellationToken cancellation)
    {
        try
        {
            return SpecReader.Read(yaml, "spec", folder.Length > 0 ? folder : null, cancellation);
        }
        catch (SpecException e)
        {
            throw ApiException.OfSpec(e);
        }
    }

    /// <summary>Looks.</summary>
    /// <param name="storage">Where files may be.</param>
    /// <param name="spec">The spec.</param>
    /// <param name="part">What a problem's path may begin with, and does not in the answer.</param>
    /// <exception cref="ApiException">Something is not.</exception>
    internal static void Require(StorageFolders storage, VmSpec spec, string part = "")
    {
        List<SpecProblem> problems = [.. Problems(storage, spec), .. Sockets(storage, spec)];
        if (problems.Count > 0)
        {
            throw ApiException.OfSpec(new SpecException([.. problems.Select(
                p => p.Path.StartsWith(part, StringComparison.Ordinal) ? p with { Path = p.Path[part.Length..] } : p)]));
        }
    }

    /// <summary>Disks over images are made with their VM, and not later.</summary>
    /// <exception cref="ApiException">The spec names an image.</exception>
    internal static void RefuseImages(VmSpec spec, string part = "")
    {
        for (int i = 0; i < spec.Disks.Count; i++)
        {
            if (spec.Disks[i].Image is { } image)
            {
                string field = $"disks[{i}].image";
                throw ApiException.OfSpec(new SpecException([new SpecProblem(
                    field.StartsWith(part, StringComparison.Ordinal) ? field[part.Length..] : field,
                    $"{image}: a disk over an image is made when its VM is created. For a VM that is there make one with 'vmmctl disk "
                        + "create FILE --backing PATH --backing-format FORMAT' over the path that 'vmmctl image show' tells")]));
            }
        }
    }

    private static IEnumerable<SpecProblem> Problems(StorageFolders storage, VmSpec spec)
    {
        foreach ((string field, string? path) in new[] { ("boot.kernel", spec.Boot.Kernel), ("boot.initrd", spec.Boot.Initrd) }
            .Concat(spec.Disks.Select((disk, i) => ($"disks[{i}].path", disk.IsRemote ? null : disk.Path))))
        {
            if (path is not { Length: > 0 })
            {
                continue;
            }

            if ((Path.IsPathRooted(path)
                ? storage.Problem(path)
                : $"{path} is relative and the request names no folder: give the whole path") is { } problem)
            {
                yield return new SpecProblem(field, problem);
            }
        }

        for (int i = 0; i < spec.Shares.Count; i++)
        {
            string path = spec.Shares[i].Path;
            if ((Path.IsPathRooted(path) ? storage.Problem(spec.Shares[i])
                : $"{path} is relative and the request names no folder: give the whole path") is { } problem)
            {
                yield return new SpecProblem($"shares[{i}].path", problem);
            }
        }

        if (spec.Paging?.Swap is { } swap && (Path.IsPathRooted(swap) ? storage.FolderProblem(swap)
            : $"{swap} is relative and the request names no folder: give the whole path") is { } why)
        {
            yield return new SpecProblem("memory.swap", why);
        }

        if (spec.Boot.Variables is not null)
        {
            yield return new SpecProblem("boot.variables", "vmmd keeps them with the VM: leave it out");
        }

        for (int i = 0; i < spec.Disks.Count; i++)
        {
            if (spec.Disks[i].Nbd is { } nbd && storage.Problem(nbd) is { } problem)
            {
                yield return new SpecProblem($"disks[{i}].nbd", problem);
            }

            if (spec.Disks[i].Rbd is { } rbd && storage.Problem(rbd) is { } refused)
            {
                yield return new SpecProblem($"disks[{i}].rbd", refused);
            }
        }
    }

    private static IEnumerable<SpecProblem> Sockets(StorageFolders storage, VmSpec spec)
    {
        for (int i = 0; i < spec.Devices.Count; i++)
        {
            if (spec.Devices[i].BackEnd is { } socket && (Path.IsPathRooted(socket) ? storage.SocketProblem(socket)
                : $"{socket} is relative and the request names no folder: give the whole path") is { } problem)
            {
                yield return new SpecProblem($"devices[{i}].socket", problem);
            }
        }
    }
}
