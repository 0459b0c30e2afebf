using Vmm.CommandLine;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Run;

/// <summary>What is to be run.</summary>
/// <param name="Spec">The spec; that of the saved VM when one is restored.</param>
/// <param name="Restore">A saved VM that goes on; null starts the spec.</param>
/// <param name="SaveTo">The folder into which the VM is saved when it is told to stop; null ends it then.</param>
public sealed record RunRequest(VmSpec Spec, SavedMachine? Restore = null, string? SaveTo = null)
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
            VmSpec? spec = arguments.ToSpec(problems);
            if (spec?.Disks.FirstOrDefault(d => d.Image is not null)?.Image is { } image)
            {
                problems.Add($"disks: the image {image} is vmmd's, which makes a disk over it (vmmctl vm create); here name a file: path");
            }

            return spec is not null && problems.Count == 0
                ? new RunRequest(spec, Restore: null, arguments.SaveTo)
                : null;
        }

        if (arguments.HasSpecOptions)
        {
            problems.Add("--restore goes with --save-to, --quiet and --no-serial-input only: the saved VM is what it was");
        }

        try
        {
            SavedMachine saved = SavedMachine.Read(arguments.Restore);
            return problems.Count == 0 ? new RunRequest(saved.Description.Spec, saved, arguments.SaveTo) : null;
        }
        catch (Exception cause) when (cause is StateException or IOException or UnauthorizedAccessException)
        {
            problems.Add($"--restore {arguments.Restore}: {cause.Message}");
            return null;
        }
    }
}
