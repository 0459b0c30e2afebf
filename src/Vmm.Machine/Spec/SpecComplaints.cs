using System.Runtime.CompilerServices;

namespace Vmm.Machine.Spec;

/// <summary>Collects what is wrong with a spec.</summary>
internal sealed class SpecComplaints
{
    /// <summary>What was found so far.</summary>
    internal List<SpecProblem> Problems { get; } = [];

    /// <summary>Notes a problem of the field <paramref name="path"/> unless <paramref name="holds"/>.</summary>
    internal void Require(bool holds, string path, string message)
    {
        if (!holds)
        {
            Problems.Add(new SpecProblem(path, message));
        }
    }

    /// <summary>The same with a text that is formatted only when it is needed.</summary>
    internal void Require(bool holds, string path, [InterpolatedStringHandlerArgument(nameof(holds))] ComplaintText message)
    {
        if (!holds)
        {
            Problems.Add(new SpecProblem(path, message.ToString()));
        }
    }
}
