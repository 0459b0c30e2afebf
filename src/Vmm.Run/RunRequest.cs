using System.Globalization;
using Vmm.CommandLine;
using Vmm.CommandLine.Seeds;
using Vmm.Interop;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.Spec.Seeds;
using Vmm.State;
using Vmm.Storage.Seeds;

namespace Vmm.Run;

/// <summary>What is to be run.</summary>
/// <param name="Spec">The spec; that of the saved VM when one is restored.</param>
/// <param name="Restore">A saved VM that goes on; null starts the spec.</param>
/// <param name="SaveTo">The folder into which the VM is saved when it is told to stop; null ends it then.</param>
/// <param name="Lazily">The memory of the saved VM comes from its folder while it runs.</param>
/// <param name="Seed">The memory that the seed disk of the spec is; null: it has none. It lives as long as the process.</param>
public sealed record RunRequest(
    VmSpec Spec, SavedMachine? Restore = null, string? SaveTo = null, bool Lazily = false, FileDescriptorHandle? Seed = null)
{
    /// <summary>What the options ask for. Returns problems instead of throwing.</summary>
    internal static RunRequest? From(RunArguments arguments, List<string> problems)
    {
        if (arguments.SaveTo is not null && Path.Exists(arguments.SaveTo))
        {
            problems.Add($"--save-to {arguments.SaveTo}: it exists already; a saved VM gets a folder of its own");
        }

        if (arguments.Restore is null)
        {
            if (arguments.Lazy)
            {
                problems.Add("--lazy: it goes with --restore only");
            }

            VmSpec? spec = arguments.ToSpec(problems);
            if (spec?.Disks.FirstOrDefault(d => d.Image is not null)?.Image is { } image)
            {
                problems.Add($"disks: the image {image} is vmmd's, which makes a disk over it (vmmctl vm create); here name a file: path");
            }

            spec = spec is null || problems.Count > 0 ? null : spec.WithUuid(RunIdentity.Of(spec));
            return spec is null ? null
                : arguments.Seed.IsGiven ? WithSeed(spec, arguments, problems)
                : new RunRequest(spec, Restore: null, arguments.SaveTo);
        }

        if (arguments.HasSpecOptions)
        {
            problems.Add(
                "--restore goes with --lazy, --save-to, --no-reboot, --quiet and --no-serial-input only: the saved VM is what it was");
        }

        try
        {
            SavedMachine saved = SavedMachine.Read(arguments.Restore);
            VmSpec spec = saved.Description.Spec;
            spec = arguments.NoReboot ? spec with { OnReboot = RebootPolicy.Stop } : spec;
            return problems.Count == 0 ? new RunRequest(spec, saved, arguments.SaveTo, arguments.Lazy) : null;
        }
        catch (Exception cause) when (cause is StateException or IOException or UnauthorizedAccessException)
        {
            problems.Add($"--restore {arguments.Restore}: {cause.Message}");
            return null;
        }
    }

    // A disk of memory: nothing of it is in a file of the host, and it is gone with the process.
    private static RunRequest? WithSeed(VmSpec spec, RunArguments arguments, List<string> problems)
    {
        if (arguments.SaveTo is not null)
        {
            problems.Add("--save-to: the seed of cloud-init is in memory only, and a saved VM would miss it: start once without");
        }

        if (spec.Disks.Count == SpecValidation.MaxDisks)
        {
            problems.Add($"the VM has {spec.Disks.Count} disks, and no room for the seed of cloud-init");
        }

        if (problems.Count > 0 || arguments.Seed.ToContent(PasswordPrompt.Ask, problems) is not { } content)
        {
            return null;
        }

        byte[] volume = SeedVolume.Make([.. content.Files(spec.Name).Select(file => new SeedFile(file.Name, file.Bytes))]);
        FileDescriptorHandle memory = MemoryFile.Create("vmm:seed", volume);
        DiskSpec disk = new()
        {
            Path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{memory.Number}"),
            ReadOnly = true,
            Cache = DiskCache.Buffered,
        };
        return new RunRequest(spec with { Disks = [.. spec.Disks, disk] }, Seed: memory);
    }
}
