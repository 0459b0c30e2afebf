using Vmm.Machine.Saved;
using Vmm.Spec;

namespace Vmm.Cli;

/// <summary>What <c>vmmctl run</c> is to run.</summary>
/// <param name="Spec">The spec; that of the saved VM when one is restored.</param>
/// <param name="Restore">A saved VM that goes on; null starts the spec.</param>
/// <param name="SaveTo">The folder into which the VM is saved when it is told to stop; null ends it then.</param>
public sealed record RunRequest(VmSpec Spec, SavedMachine? Restore = null, string? SaveTo = null);
